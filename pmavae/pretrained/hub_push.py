"""Weights pushed to the Hugging Face Hub, by the names that its libraries use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pmavae.files.header import weights_header
from pmavae.pretrained.hub import LIBRARY, MODEL_FILE, HubError
from pmavae.pretrained.hub_client import attempt_at, is_offline, quiet_client
from pmavae.pretrained.hub_errors import explain
from pmavae.pretrained.hub_reference import HubReference

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a model of pmavae",
    revision: str | None = None,
) -> str:
    """Upload model.safetensors of a folder, its README.md where there is one, and a config.json for them.

    The repository is made where there is none, and the branch `revision` likewise. Nothing else in the folder
    is uploaded. Returns the URL of the commit. Raises HubError.
    """
    target = HubReference.parse(repo)
    if target is None or target.revision or target.file:
        raise HubError(f"{repo} is no repository of the Hub: write it as org/name")
    model = Path(folder) / MODEL_FILE
    header = weights_header(model)
    if header is None:
        raise HubError(f"{model} is no weights file of pmavae: push a folder that holds one")
    if is_offline():
        raise HubError(f"{repo} cannot be pushed to without the network: unset HF_HUB_OFFLINE")
    attempt = attempt_at(f"{model} to {repo}", "pushed", repo, revision or "main", MODEL_FILE)
    if attempt.token is None:
        raise HubError(f"{model} was not pushed: there is no token; set HF_TOKEN or run hf auth login")
    from huggingface_hub import CommitOperationAdd, HfApi

    files: dict[str, str | bytes] = {MODEL_FILE: str(model), CONFIG_FILE: config_text(header).encode()}
    if (card := Path(folder) / CARD_FILE).is_file():
        files[CARD_FILE] = str(card)
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=what) for name, what in files.items()]
    with quiet_client(bars=False):
        try:
            api = HfApi(library_name=LIBRARY)
            api.create_repo(repo, private=private or None, exist_ok=True)
            if revision:
                api.create_branch(repo, branch=revision, exist_ok=True)
            commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
        except Exception as error:
            raise HubError(explain(error, attempt).sentence) from None
    return str(commit.commit_url)


def config_text(header: dict[str, Any]) -> str:
    """What config.json beside a weights file says: its header, under the name of the library."""
    config = header["config"]
    description = {
        "library_name": LIBRARY,
        "architecture": header["architecture"],
        "id": header["id"],
        "preset": config.get("preset"),
        "task": config.get("task", "base"),
        "config": config,
    }
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"
