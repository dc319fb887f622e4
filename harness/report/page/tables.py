"""Tables that only the page has: where numbers come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.report.document import Table, texts
from harness.report.format import DASH
from harness.report.notes import method_knobs
from harness.report.stats.bootstrap import LEVEL
from harness.results import Manifest

LEGEND = f"small print: {LEVEL} % bootstrap interval"


def origins(manifests: Iterable[Manifest]) -> Table:
    """Where each cell's numbers come from: knobs, versions, device, commit and command of the run that began it."""
    lines = [_origin(manifest) for manifest in manifests]
    return Table("", [texts(name, [line[name] for line in lines]) for name in lines[0]])


def _origin(manifest: Manifest) -> dict[str, object]:
    provenance = manifest.provenance
    packages = provenance.get("packages", {})
    return {
        "method": manifest.cell.label,
        "budget": manifest.cell.budget,
        "knobs": method_knobs(manifest) or DASH,
        "created": provenance.get("created") or DASH,
        "commit": _commit(provenance),
        "device": provenance.get("device") or DASH,
        "torch": packages.get("torch") or DASH,
        "transformers": packages.get("transformers") or DASH,
        "command": provenance.get("command") or DASH,
    }


def _commit(provenance: Mapping[str, object]) -> str:
    commit = provenance.get("commit")
    return DASH if not commit else f"{str(commit)[:10]}{' with changes' if provenance.get('dirty') else ''}"
