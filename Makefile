.venv: pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install --quiet --upgrade "pip>=25.1"
	.venv/bin/pip install --quiet --editable ".[lab]" --group dev
	touch .venv
