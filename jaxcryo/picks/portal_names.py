"""Names of particles on the CryoET Data Portal, and what they are called here."""

from __future__ import annotations

import re

from jaxcryo.domain import ParticleType

OTHER_NAMES = {
    "cytosolic-ribosome": "ribosome",
    "ferritin-complex": "apo-ferritin",
    "virus-like-capsid": "virus-like-particle",
}
"""The portal's names come from the Gene Ontology or UniProt, ours from the challenge."""


def plain_name(name: str) -> str:
    """Lower case, words joined by hyphens, as copick writes the portal's names."""
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def portal_type(name: str, types: tuple[ParticleType, ...]) -> int | None:
    """The index of the type that the portal's name means; None if it is none of them."""
    own = plain_name(name)
    names = [plain_name(t.name) for t in types]
    return next((names.index(n) for n in (own, OTHER_NAMES.get(own)) if n in names), None)
