"""Images and what is known about them. Imports neither torch nor anything above this room."""

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import DamagedStoreError, ImageStore, open_store, write_store
from bvae_tune.data.labels import LabelsConfig, WeakLabels, draw_labels
from bvae_tune.data.labels_file import read_labels
from bvae_tune.data.sources import DatasetConfig, cache_folder, import_arrays, load_labels, open_dataset

__all__ = [
    "DamagedStoreError",
    "DatasetConfig",
    "FactorSpace",
    "ImageStore",
    "LabelsConfig",
    "WeakLabels",
    "cache_folder",
    "draw_labels",
    "import_arrays",
    "load_labels",
    "open_dataset",
    "open_store",
    "read_labels",
    "write_store",
]
