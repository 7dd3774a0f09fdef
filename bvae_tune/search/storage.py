"""The study's folder as any node reaches it: through pyarrow, by absolute path or URI."""

from __future__ import annotations

from pyarrow import fs

from bvae_tune.errors import InputError

STUDY = "study.json"
WEIGHTS = "weights.safetensors"
LATEST = "latest"  # what a person calls the study begun last


def sees(study: str, file: str) -> bool:
    """Whether this node sees `file` in the study's folder."""
    try:
        system, root = fs.FileSystem.from_uri(study)
        info = system.get_file_info(f"{root.rstrip('/')}/{file}")
    except (OSError, ValueError) as error:
        raise InputError(f"{study}: not reachable through pyarrow ({error})") from error
    return bool(info.type == fs.FileType.File)
