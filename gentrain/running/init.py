"""Write a first study for a folder of images: look at them, choose a recipe that suits them, explain both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gentrain.data.sources.survey import FolderSurvey, survey_folder
from gentrain.errors import ConfigError, printable, shown_path
from gentrain.study.documents import read_yaml
from gentrain.study.json_schema import SCHEMA_FILE
from gentrain.study.loading import parse_study
from gentrain.study.schema import Study
from gentrain.study.template import Images, study_name, study_text


@dataclass(frozen=True)
class FirstStudy:
    """A study that was written for a folder, and what the folder holds."""

    file: Path
    study: Study
    survey: FolderSurvey


def write_first_study(folder: Path, *, output: Path | None = None, force: bool = False) -> FirstStudy:
    """Look at a folder of images and write a commented study of it.

    Args:
        folder: with a folder of images for each class, or `train` and `test` with such folders.
        output: the study's file; default: the folder's name in the working folder.
        force: overwrite the file where it is there.

    Raises:
        ConfigError: when the file is there already or can't be written.
        DataError: when no study can be made of the folder.
    """
    name = study_name(folder.resolve().name)
    file = output or Path(f"{name}.yaml")
    shown = shown_path(str(file))
    if os.path.lexists(file) and not force:
        raise ConfigError(f"{shown}: is there already; --force overwrites it, --output FILE writes another")
    survey = survey_folder(folder)
    images = Images(
        classes=len(survey.classes),
        train=survey.counts["train"],
        test=survey.images("test"),
        sides=survey.sides,
        test_part=survey.test_part,
        broken=len(survey.broken),
    )
    path = os.path.relpath(os.path.realpath(folder), os.path.realpath(file.absolute().parent))
    path = f"./{path}" if path.startswith("~") else path
    if printable(path) != path:
        raise ConfigError(f"{shown_path(path)}: a name that a study file can't hold; rename the folder")
    text = study_text(name, path, images, file=str(file), schema=str(SCHEMA_FILE))
    study = parse_study({key: value for key, value in read_yaml(text).items() if key != "smoke"}, where=shown)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise ConfigError(f"{shown}: can't be written ({error.strerror}); --output FILE writes elsewhere") from None
    return FirstStudy(file, study, survey)
