"""A built bundle brought to a model repository of the Hugging Face hub, by its own client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kagglehms.bundle.hub import PREFIX, published_card
from kagglehms.bundle.manifest import HUB_CARD, MANIFEST, read_manifest, verify
from kagglehms.errors import RunError, UsageError, first_line
from kagglehms.kaggle.dist import require_bundle
from kagglehms.packing.model_card import MODEL_CARD

_KEPT = ".gitattributes"
"""The hub's own file, which says which files are large."""


@dataclass(frozen=True)
class Published:
    """A bundle on the hub.

    Attributes:
        name: what `load_bundle` takes.
        digest: digest of the bundle.
        url: address of the commit.
    """

    name: str
    digest: str
    url: str

    @property
    def sentence(self) -> str:
        """What was published and how it is loaded, in one line."""
        return (
            f'published at {self.url}; load_bundle("{self.name}", expected_digest="{self.digest}") loads it'
        )


def publish_bundle(dist: Path, repository: str, private: bool) -> Published:
    """Make the hub's repository hold this bundle and nothing else, in one commit.

    Args:
        dist: folder that `kagglehms build` made.
        repository: owner/name on the hub; made if it is not there.
        private: whether a new repository is private.

    Raises:
        UsageError: there is no bundle in `dist`, it has no models, or the name is no owner/name.
        BundleError: the bundle is not what its manifest says.
        RunError: the hub refuses or does not answer.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    require_bundle(dist)
    bundle = dist / "dataset"
    manifest = read_manifest(bundle)
    if not manifest.models:
        raise UsageError(f"{bundle}: holds no models to publish; build it from a trained run")
    if repository.count("/") != 1:
        raise UsageError(f"{repository!r} is no repository of the hub; give owner/name")
    verify(bundle, manifest)
    card = published_card((bundle / MODEL_CARD).read_bytes(), repository, manifest.digest)
    files: dict[str, Path | bytes] = {name: bundle / name for name in (*manifest.files, MANIFEST)}
    files[HUB_CARD] = card
    try:
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        stale = set(hub.list_repo_files(repository)) - files.keys() - {_KEPT}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(name) for name in sorted(stale)),
            *(CommitOperationAdd(name, content) for name, content in files.items()),
        ]
        done = hub.create_commit(repository, operations, commit_message=f"Bundle {manifest.digest[:12]}")
    except Exception as error:  # depending on its release, the client raises errors of three HTTP libraries
        raise RunError(
            f"the hub did not take the bundle ({first_line(error)}); log in with `hf auth login` and a token that may "
            f"write to {repository}"
        ) from error
    return Published(PREFIX + repository, manifest.digest, done.commit_url)
