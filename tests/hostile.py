"""What a person with bad intentions, or bad luck, may name things; each is a name that gentrain takes."""

import sys

from gentrain.models.registry import build_model

FACTORY = "<img src=x onerror=alert(1)>"
NETWORK = f"tests.hostile:{FACTORY}"
CLASSES = ("<script>alert(2)<", "$\\frac{1}{0$", "a|b_c*d*", "'\"&amp; 漢字 👩‍🔬", "%s {{ 7*7 }}", "# [red]heading :x:")
DESCRIPTION = "</style></script><script>alert(3)</script> \\input{/etc/passwd} [x](javascript:alert(4)) {{ 7*7 }} ]]>"


def _build(*, num_classes):
    return build_model("resnet8", num_classes=num_classes)


setattr(sys.modules[__name__], FACTORY, _build)
