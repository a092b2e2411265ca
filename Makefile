# Two commands on a bare machine: `make demo` and `make test`. Both install what is missing, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench growth simulations slow properties mutants faults soak cluster-test dashboard-test setup browser lint types layers unit docs docs-site docs-pictures fmt clean

demo: $(STAMP)
	$(BIN)/gentrain chain experiments/quickstart.yaml

test: lint types layers unit

slow: $(STAMP)
	$(BIN)/pytest -m slow

# Hypothesis's invariants with examples that are drawn each time, and more of them.
properties: $(STAMP)
	$(BIN)/pytest -n 2 -m hypothesis --hypothesis-profile others

# Sweeps that share an object store which misbehaves: minutes. One history: make simulations SEED=318 COUNT=1.
simulations: $(STAMP)
	GENTRAIN_SIMULATIONS=$(or $(COUNT),100000) GENTRAIN_SIMULATION_SEED=$(or $(SEED),0) \
		$(BIN)/pytest -n0 tests/running/test_shared_store.py -k histories

# What a step costs against its arithmetic, a plain script and torchdistill: make bench DATA=DIR (CIFAR-100 as Parquet).
bench: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m experiments.bench.bench $(if $(DATA),--data $(DATA)) $(if $(ONLY),--only $(ONLY))

# Time and memory against depth, batch, workers, samples, generations and chains: make growth DATA=DIR.
growth: $(STAMP)
	$(BIN)/python -m experiments.bench.growth $(if $(DATA),--data $(DATA))

# Plants faults in a copy, to see that tests notice them; writes docs/mutants.md: make mutants, or some with ONLY=word.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(ONLY)

# Sweeps on a cluster of two nodes under 200 seeded faults, which must end in the same bits: about an hour.
faults: $(STAMP)
	$(BIN)/python -m tests.faults.campaign --faults 200 --write docs/campaign.md

# 500 tiny generations in one process: memory, descriptors, threads and processes stay as they are. About three minutes.
soak: $(STAMP)
	$(BIN)/python -m tests.faults.soak --generations 500

# ray up, gentrain sweep, ray down over ssh on two machines made of namespaces: minutes, and root.
cluster-test: $(STAMP)
	$(BIN)/python tests/cluster/ray_up.py

# A sweep under a real Prometheus, and Grafana where it is installed; every panel of the dashboard must have data: minutes.
dashboard-test: $(STAMP)
	$(BIN)/python -m tests.cluster.dashboard

setup: $(STAMP)

$(STAMP): pyproject.toml setup.sh
	PYTHON="$(PYTHON)" sh setup.sh $(VENV)
	@touch $(STAMP)

# For the test that opens the report's page, which skips itself where there is no browser.
browser:
	@command -v chromium >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1 || { \
		echo "installing chromium (a test opens the report's page with it)"; \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "chromium can't be installed here; the test that needs it is skipped" >&2

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP) browser
	$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

docs: $(STAMP)
	$(BIN)/python -c "from gentrain.study.reference import schema_reference as r; open('docs/study.md', 'w').write(r())"
	$(BIN)/gentrain schema --output gentrain/study/study.schema.json

# The documentation as a site, in site/; a link that leads nowhere is an error.
docs-site: docs
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of README and site, taken of real runs; needs chromium.
docs-pictures: $(STAMP) browser
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	$(BIN)/python docs/make_pictures.py

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
