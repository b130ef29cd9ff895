"""``fairseq-adv cache info|verify|gc DIR``: what a cache of perturbations holds, whether it is whole, what can go."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Dict, List, Set

from fairseq_adv.cache import CacheReader, open_cache
from fairseq_adv.cache.manifest import MANIFEST, read_current
from fairseq_adv.cache.verify import verify_generation

HELP = "show, verify or clean up a cache of perturbations"


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
                "--keep-checkpoints", nargs="*", default=[], metavar="FILE", help="checkpoints whose generations stay"
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


def _generations(directory: str) -> List[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith("gen-"))


def _bytes(folder: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


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
            bytes=_bytes(os.path.join(args.dir, manifest.name)),
            configuration=dict(sorted(manifest.fields.items())),
        )
    else:
        facts["generation"] = "none committed yet"
    facts["folders"] = [
        f"{name}: {_bytes(os.path.join(args.dir, name))} bytes, {_state(args.dir, name)}"
        for name in _generations(args.dir)
    ]
    _print(args, facts)
    return 0


def _state(directory: str, name: str) -> str:
    if not os.path.exists(os.path.join(directory, name, MANIFEST)):
        return "in progress or abandoned"
    current = read_current(directory)
    return "current" if current is not None and current["name"] == name else "superseded"


def _verify(args: argparse.Namespace) -> int:
    reader: CacheReader = open_cache(args.dir, args.generation)
    damaged = verify_generation(reader)
    _print(
        args,
        {
            "directory": args.dir,
            "generation": reader.manifest.generation,
            "records": len(reader.ids),
            "damaged": damaged,
        },
    )
    return 1 if damaged else 0


def _gc(args: argparse.Namespace) -> int:
    current = read_current(args.dir)
    keep: Set[str] = {current["name"]} if current is not None else set()
    for path in args.keep_checkpoints:
        keep |= _named_by(path)
    superfluous = [name for name in _generations(args.dir) if name not in keep]
    in_use = [name for name in superfluous if not os.path.exists(os.path.join(args.dir, name, MANIFEST))]
    if args.delete and os.path.exists(os.path.join(args.dir, "OWNER")):
        raise ValueError(
            f"{args.dir} is in use or its run was killed: resume or finish that run, or remove {args.dir}/OWNER"
        )
    freed = sum(_bytes(os.path.join(args.dir, name)) for name in superfluous)
    if args.delete:
        import shutil

        for name in superfluous:
            shutil.rmtree(os.path.join(args.dir, name))
    facts = {"directory": args.dir, "kept": sorted(keep), "superfluous": superfluous, "never committed": in_use}
    _print(args, {**facts, "bytes": freed, "deleted": bool(args.delete)})
    return 0


def _named_by(path: str) -> Set[str]:
    """The generation folders that the checkpoint at *path* needs."""
    import fairseq_adv

    fairseq_adv.register()
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    extra_state = load_checkpoint_to_cpu(path)["extra_state"]
    names: Set[str] = set()
    for value in extra_state.values():
        state = value.get("fairseq_adv", {}).get("cache") if isinstance(value, dict) else None
        for part in ("committed", "in_progress"):
            if state and state.get(part):
                names.add(state[part]["name"])
    return names
