"""A tiny FeNNol model with random weights, of the kind of ANI-1ccx, for tests."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

ELEMENTS = ["H", "C", "N", "O"]


def export(path: Path) -> None:
    """Writes the model: ANI's features, one hidden layer per element, energies in hartree."""
    import jax
    from fennol.models import FENNIX

    features = {
        "module_name": "ANI_AEV",
        "embedding_key": "features",
        "graph_key": "graph",
        "graph_angle_key": "graph_angle",
        "species_order": ELEMENTS,
        "radial_start": 0.9,
        "radial_eta": 16.0,
        "radial_dist_divisions": 6,
        "angular_start": 0.9,
        "angular_eta": 8.0,
        "angular_dist_divisions": 3,
        "angle_sections": 4,
        "zeta": 32.0,
    }
    energy = {
        "module_name": "SPECIES_INDEX_NET",
        "input_key": "features",
        "species_index_key": "species_index",
        "output_dim": 1,
        "use_bias": True,
        "activation": "partial(celu, alpha=0.1)",
        "hidden_neurons": {key: [8] for key in ELEMENTS},
    }
    prepared = {
        "graph_filter": {"cutoff": 3.5, "graph_key": "graph_angle", "parent_graph": "graph"},
        "graph_angular_extension": {"graph_key": "graph_angle"},
        "species_indexer": {"output_key": "species_index"},
    }
    model = FENNIX(
        cutoff=5.2,
        modules=OrderedDict(features=features, energy=energy),
        preprocessing=OrderedDict(prepared),
        energy_terms=["energy"],
        energy_unit="Ha",
        rng_key=jax.random.PRNGKey(0),
    )
    model.save(str(path))
