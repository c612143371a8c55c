# Two commands do all the set-up on a fresh Debian or Ubuntu machine with root: `make demo` and `make test`.

PY := .venv/bin/python
SEED ?= 1
SCHEDULES ?= 100000
# No test and no tool of this project talks to AWS, whatever the environment says.
export AWS_EC2_METADATA_DISABLED := true

.PHONY: demo test lint sim soak bench ansible deb wheel reference docs sbom recording clean packages

demo: .venv  ## a real pair failing over in the lab, for people to watch (about a minute; root)
	.venv/bin/awsha lab demo

test: .venv lint  ## everything that .ci/run runs
	$(PY) -m pytest -q -rs -n 3 --dist loadgroup

lint: .venv docs  ## ruff, strict mypy, cfn-lint, the documentation's links, known vulnerabilities
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/cfn-lint
	$(PY) -m tests.tools.audit

docs: .venv  ## the documentation as a site, into build/site; a link to nowhere is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict --config-file conf/mkdocs.yml

sbom: .venv  ## what awsha runs on, as CycloneDX, into dist/
	$(PY) -m tests.tools.sbom

recording: .venv  ## docs/demo.svg: records `awsha lab demo` (root; two minutes)
	$(PY) -m tests.tools.record

sim: .venv  ## the deterministic simulation: SCHEDULES=100000 SEED=1
	$(PY) -m tests.sim --schedules $(SCHEDULES) --seed $(SEED)

soak: .venv  ## random faults in the lab while a client writes (root; minutes)
	$(PY) -m tests.soak --failovers 50

bench: .venv  ## figures as ratios, into build/bench.json (root)
	$(PY) -m tests.bench

ansible: .venv build/ansible  ## conf/ansible: linted, then run against systemd containers (root; minutes)
	cd conf/ansible && PATH="$(CURDIR)/build/ansible/bin:$$PATH" ansible-lint --strict
	$(PY) -m pytest -q -s tests/ansible/full.py

build/ansible: pyproject.toml  # apart from .venv: it is as large again, and only `make ansible` needs it
	python3 -m venv build/ansible
	build/ansible/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	build/ansible/bin/python -m pip install --quiet --disable-pip-version-check --group ansible
	@touch build/ansible

deb: .venv  ## dist/awsha_VERSION_all.deb, out of this tree and the packages that it is tested with
	$(PY) -m conf.debian.build

wheel: .venv  ## dist/awsha-VERSION-py3-none-any.whl
	$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

reference: .venv  ## docs/reference.md out of the code
	$(PY) -m tests.tools.reference

packages:
	@sh .ci/packages

.venv: pyproject.toml | packages  ## the virtual environment with .venv/bin/awsha
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[lab]" --group dev
	@touch .venv

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
