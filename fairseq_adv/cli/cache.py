"""``fairseq-adv cache info|verify|gc DIR``: what a cache of perturbations holds, whether it is whole, what can go."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Dict, Optional

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.manifest import MANIFEST, Manifest, read_current, read_manifest
from fairseq_adv.cache.opening import folder_bytes
from fairseq_adv.cache.owner import is_alive, read_holder
from fairseq_adv.cache.retention import (
    checkpoint_folders,
    delete_generation,
    generation_folders,
    named_by_checkpoint,
    needed_generations,
)
from fairseq_adv.cache.verify import verify_generation

HELP = "show, verify or clean up a cache of perturbations"
EXAMPLE = """\
fairseq-adv cache info run/perturbations
fairseq-adv cache verify run/perturbations --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("info", "generation, records, bytes and configuration"),
        ("verify", "read everything and name each damaged record (exit status 1 if there is one)"),
        ("gc", "list the generations that no checkpoint needs; with --delete, delete them"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("dir", metavar="DIR", help="cache directory, such as SAVE_DIR/perturbations")
        action.add_argument("--json", action="store_true", help="print a JSON object")
        if name == "verify":
            action.add_argument("--generation", type=int, help="number of the generation (the current one)")
        if name == "gc":
            action.add_argument(
                "--keep-checkpoints",
                nargs="*",
                default=[],
                metavar="FILE",
                help="checkpoints elsewhere whose generations stay",
            )
            action.add_argument("--delete", action="store_true", help="delete; without it nothing is touched")


def run(args: argparse.Namespace) -> int:
    if not os.path.isdir(args.dir):
        raise FileNotFoundError(f"{args.dir} is not a directory")
    return {"info": _info, "verify": _verify, "gc": _gc}[args.action](args)


def _print(args: argparse.Namespace, facts: Dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            print("\n".join(f"  {name}: {item}" for name, item in value.items()))
        elif isinstance(value, list):
            print(f"{key}: {'none' if not value else ''}")
            print("\n".join(f"  {item}" for item in value), end="\n" if value else "")
        else:
            print(f"{key}: {value}")


def _info(args: argparse.Namespace) -> int:
    facts: Dict[str, Any] = {"directory": args.dir}
    if read_current(args.dir) is not None:
        reader = open_cache(args.dir)
        manifest = reader.manifest
        facts.update(
            generation=manifest.generation,
            refresh_epoch=manifest.epoch,
            records=len(reader.ids),
            shards=len(manifest.shards),
            sides=", ".join(reader.sides),
            ema=manifest.ema,
            bytes=folder_bytes(os.path.join(args.dir, manifest.name)),
            configuration=dict(sorted(manifest.fields.items())),
        )
    else:
        facts["generation"] = "none committed yet"
    facts["folders"] = [
        f"{name}: {folder_bytes(os.path.join(args.dir, name))} bytes, {_state(args.dir, name)}"
        for name in generation_folders(args.dir)
    ]
    _print(args, facts)
    return 0


def _state(directory: str, name: str) -> str:
    if not os.path.exists(os.path.join(directory, name, MANIFEST)):
        return "in progress or abandoned"
    current = read_current(directory)
    return "current" if current is not None and current["name"] == name else "superseded"


def _verify(args: argparse.Namespace) -> int:
    manifest = _chosen_manifest(args.dir, args.generation)
    damaged = verify_generation(args.dir, manifest)
    _print(
        args,
        {
            "directory": args.dir,
            "generation": manifest.generation,
            "records": manifest.num_records,
            "damaged": damaged,
        },
    )
    return 1 if damaged else 0


def _chosen_manifest(directory: str, generation: Optional[int]) -> Manifest:
    current = read_current(directory)
    if generation is None and current is not None:
        return read_manifest(directory, current["name"], current["manifest_crc32"])
    return open_cache(directory, generation).manifest


def _gc(args: argparse.Namespace) -> int:
    keep = needed_generations(args.dir).union(*map(named_by_checkpoint, args.keep_checkpoints))
    superfluous = [name for name in generation_folders(args.dir) if name not in keep]
    holder = read_holder(args.dir)
    if args.delete and holder is not None and is_alive(holder):
        raise ValueError(
            f"{args.dir} is in use by run {holder.get('run_id')} (process {holder.get('pid')} on "
            f"{holder.get('host')}), which deletes what it can itself; if that run is dead, remove its file OWNER"
        )
    every, kept = (
        [os.path.join(args.dir, name) for name in generation_folders(args.dir) if name in some]
        for some in ({*superfluous, *keep}, keep)
    )
    freed = folder_bytes(*every) - folder_bytes(*kept)  # generations may share shards
    if args.delete:
        for name in superfluous:
            delete_generation(args.dir, name)
    facts = {"directory": args.dir, "checkpoint_folders": checkpoint_folders(args.dir), "kept": sorted(keep)}
    _print(args, {**facts, "superfluous": superfluous, "bytes": freed, "deleted": bool(args.delete)})
    return 0
