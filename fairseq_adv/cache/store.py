"""The trainer's handle on the cache: refreshes, commits, checkpoints. ``docs/cache.md`` tells the protocol.

A refresh writes a new generation beside the committed one (its parent); the commit makes it current. A checkpoint
names the committed generation and the sealed shards of the one in progress; on resume the checkpoint is the truth,
whatever lies on disk besides.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set

from torch import Tensor

from fairseq_adv.cache.comm import Comm, LocalComm, together
from fairseq_adv.cache.files import crc32, files
from fairseq_adv.cache.manifest import MANIFEST, SPEC, Manifest, read_file, read_manifest, write_current
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.spec import CacheSpec, differing_fields
from fairseq_adv.cache.writer import GenerationWriter

logger = logging.getLogger(__name__)


class PerturbationCache:
    """Cache directory *directory* as one rank of a training run sees it; every rank makes one, in step.

    *ema* is α of the moving average, *run_id* the name by which a restarted run is the same run. Raises
    ``ValueError`` for a directory that another run holds (unless *takeover*) or that holds a cache of another
    configuration, listing the fields that differ, and if *expected_bytes* (for two generations) do not fit on the disk.
    """

    def __init__(
        self,
        directory: str,
        spec: CacheSpec,
        *,
        ema: float,
        run_id: str,
        rank: int = 0,
        world_size: int = 1,
        comm: Optional[Comm] = None,
        shard_bytes: int = 256 << 20,
        takeover: bool = False,
        expected_bytes: int = 0,
    ) -> None:
        self.directory, self.spec, self.ema, self.rank, self.world_size = directory, spec, ema, rank, world_size
        self._comm: Comm = comm or LocalComm()
        self._shard_bytes = shard_bytes
        self._attempt = self._comm.broadcast_object(uuid.uuid4().hex[:8])
        self._owner: Optional[OwnerLock] = None
        self.reader: Optional[CacheReader] = None
        self._writer: Optional[GenerationWriter] = None
        self._progress: Optional[Dict[str, Any]] = None  # generation, name, epoch, shards (complete after a gather)
        self._collective(
            lambda: self._open(run_id, takeover, expected_bytes) if rank == 0 else None, "opening the cache"
        )

    # ---- state --------------------------------------------------------------------------------------------

    @property
    def refreshing(self) -> bool:
        """Whether a generation is in progress."""
        return self._progress is not None

    @property
    def refresh_epoch(self) -> Optional[int]:
        """The epoch of the refresh in progress."""
        return None if self._progress is None else int(self._progress["epoch"])

    @property
    def generation(self) -> Optional[int]:
        """Number of the committed generation."""
        return None if self.reader is None else self.reader.manifest.generation

    @property
    def last_refresh_epoch(self) -> Optional[int]:
        """The epoch that made the committed generation."""
        return None if self.reader is None else self.reader.manifest.epoch

    # ---- opening ------------------------------------------------------------------------------------------

    def _open(self, run_id: str, takeover: bool, expected_bytes: int) -> None:
        try:
            os.makedirs(self.directory, exist_ok=True)
            self._owner = OwnerLock(self.directory, run_id, takeover)
        except OSError as error:
            raise ValueError(
                f"cannot write to cache directory {self.directory}: {os.strerror(error.errno or 0)}"
            ) from error
        free = shutil.disk_usage(self.directory).free
        if expected_bytes > free:
            raise ValueError(
                f"{self.directory} has {free / 1e9:.2f} GB free, two generations of this cache take up to "
                f"{expected_bytes / 1e9:.2f} GB: choose another --cache-dir, a smaller --cache-proportion or "
                "--cache-dtype int8"
            )
        path, wanted = os.path.join(self.directory, SPEC), self.spec.to_json()
        if os.path.exists(path):
            differing = differing_fields(json.loads(read_file(path)), wanted)
            if differing:
                raise ValueError(
                    f"cache directory {self.directory} is of another configuration ({'; '.join(differing)}): choose "
                    "another --cache-dir, or delete it to start anew"
                )
        else:
            files.write_durably(path, json.dumps(wanted, indent=1, sort_keys=True).encode())

    # ---- a refresh ----------------------------------------------------------------------------------------

    def begin_refresh(self, epoch: int) -> None:
        """Every rank: start a generation, or go on with the one in progress if it is of this *epoch*."""
        if self._progress is not None and self._progress["epoch"] == epoch:
            if self._writer is None:
                self._writer = self._new_writer()
            return
        number = (self.generation or 0) + 1
        name = f"gen-{number:06d}-{self._comm.broadcast_object(uuid.uuid4().hex[:8])}"
        self._progress = {"generation": number, "name": name, "epoch": epoch, "shards": []}
        self._collective(
            lambda: os.makedirs(os.path.join(self.directory, name)) if self.rank == 0 else None, "starting a generation"
        )
        self._writer = self._new_writer()

    def _new_writer(self) -> GenerationWriter:
        assert self._progress is not None
        folder = os.path.join(self.directory, self._progress["name"])
        prefix = f"w{self.rank:04d}-{self._attempt}"
        return GenerationWriter(folder, prefix, self.spec, self.ema, self.reader, self._shard_bytes)

    def put(
        self,
        ids: Sequence[int],
        update: int,
        src: Optional[Sequence[Tensor]] = None,
        tgt: Optional[Sequence[Tensor]] = None,
    ) -> None:
        """Average the new perturbations of *ids* (``len_i x D`` each) into the generation in progress."""
        if self._writer is None:
            raise RuntimeError("no refresh is in progress: call begin_refresh first")
        given = {"src": src, "tgt": tgt}
        self._writer.put(ids, update, {side: rows for side, rows in given.items() if rows is not None})

    def prepare_checkpoint(self) -> None:
        """Every rank: seal what is buffered, so that :meth:`state_dict` names every record so far."""
        if self._progress is not None:
            self._seal_and_gather()

    def _seal_and_gather(self) -> None:
        assert self._progress is not None
        writer = self._writer = self._writer or self._new_writer()

        def seal() -> List[Dict[str, Any]]:
            writer.seal()
            return writer.entries

        known = {entry["name"]: entry for entry in self._progress["shards"]}
        for entries in self._collective(seal, "writing perturbations to the cache"):
            known.update({entry["name"]: entry for entry in entries})
        self._progress["shards"] = sorted(known.values(), key=lambda entry: entry["name"])

    def commit(self, expected_ids: Optional[Iterable[int]] = None) -> int:
        """Every rank, after a refresh: make its generation the current one and return its number.

        Members of *expected_ids* that no rank wrote keep their old perturbation. Fails on every rank alike, and leaves
        the parent as it was, if two ranks wrote one id, a rank could not write, or another run took the directory.
        """
        if self._progress is None:
            raise RuntimeError("no refresh is in progress")
        self._seal_and_gather()
        manifest = self._comm_result(lambda: self._write_manifest(expected_ids), "committing the cache")
        self._pin(Manifest(**manifest))
        self._progress = self._writer = None
        self._comm.barrier()
        return int(manifest["generation"])

    def _write_manifest(self, expected_ids: Optional[Iterable[int]]) -> Dict[str, Any]:
        """Rank 0: check, carry over, write ``MANIFEST.json`` and ``CURRENT``."""
        assert self._progress is not None and self._owner is not None
        self._owner.check()
        written = self._check_unique()
        shards = list(self._progress["shards"])
        missing = set(map(int, expected_ids)) - written if expected_ids is not None else set()
        shards += self._carry_over(sorted(missing))
        manifest = Manifest(
            generation=self._progress["generation"],
            name=self._progress["name"],
            epoch=self._progress["epoch"],
            parent=self.generation,
            ema=self.ema,
            fields=dict(self.spec.to_json()),
            shards=shards,
        )
        manifest.num_records = len(CacheReader(self.directory, manifest).ids)
        files.write_durably(os.path.join(self.directory, manifest.name, MANIFEST), manifest.to_bytes())
        write_current(self.directory, manifest)
        return manifest.__dict__

    def _check_unique(self) -> Set[int]:
        """The ids in the sealed shards; raises ``ValueError`` if two writers wrote the same one."""
        assert self._progress is not None
        writer_of: Dict[int, str] = {}
        probe = Manifest(0, self._progress["name"], 0, None, 0, dict(self.spec.to_json()))
        for entry in self._progress["shards"]:
            probe.shards = [entry]
            for sample_id in CacheReader(self.directory, probe).ids.tolist():
                if writer_of.setdefault(sample_id, entry["writer"]) != entry["writer"]:
                    raise ValueError(
                        f"sample {sample_id} was written by two ranks ({writer_of[sample_id]} and {entry['writer']})"
                    )
        return set(writer_of)

    def _carry_over(self, ids: List[int]) -> List[Dict[str, Any]]:
        """Copy the parent's records of *ids*, as far as it has them, into a shard of their own."""
        if self.reader is None or not ids:
            return []
        ids = [i for i, there in zip(ids, self.reader.contains(ids)) if there]
        assert self._progress is not None
        folder = os.path.join(self.directory, self._progress["name"])
        copier = GenerationWriter(folder, f"carry-{self._attempt}", self.spec, 0.0, None, self._shard_bytes)
        for i, update in zip(ids, self.reader.update_nums(ids) if ids else []):
            copier.put([i], update, {side: self.reader.read([i], side) for side in self.spec.sides})
        copier.seal()
        if ids:
            logger.info("%d samples were not refreshed and keep their perturbation", len(ids))
        return copier.entries

    # ---- checkpoints --------------------------------------------------------------------------------------

    def state_dict(self) -> Dict[str, Any]:
        """Plain containers that name the committed generation and the sealed part of the one in progress."""
        committed = None
        if self.reader is not None:
            manifest = self.reader.manifest
            committed = {
                "generation": manifest.generation,
                "name": manifest.name,
                "manifest_crc32": crc32(manifest.to_bytes()),
            }
        progress = None if self._progress is None else json.loads(json.dumps(self._progress))
        return {"committed": committed, "in_progress": progress}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go back to what a checkpoint names; shards sealed after it are forgotten.

        Raises ``ValueError`` if the cache no longer holds the checkpoint's generation.
        """
        committed = state.get("committed")
        self.reader = self._writer = None
        if committed is not None:
            try:
                self._pin(read_manifest(self.directory, committed["name"], committed["manifest_crc32"]))
            except OSError as error:
                raise ValueError(
                    f"the checkpoint needs generation {committed['generation']} of the cache ({committed['name']}), "
                    f"which {self.directory} does not hold: {error}"
                ) from error
        self._progress = state.get("in_progress")
        if self._progress is not None:
            self._comm_result(self._check_unique, "reading the refresh in progress")

    def _pin(self, manifest: Manifest) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = CacheReader(self.directory, manifest)

    # ---- the end ------------------------------------------------------------------------------------------

    def collect_garbage(self, keep: Iterable[int]) -> List[str]:
        """Rank 0 deletes generation folders that are neither committed, in progress nor numbered in *keep*."""
        if self.rank != 0:
            return []
        needed = {self.reader.manifest.name} if self.reader is not None else set()
        needed |= {self._progress["name"]} if self._progress is not None else set()
        kept_numbers, deleted = set(keep), []
        for name in sorted(os.listdir(self.directory)):
            if name.startswith("gen-") and name not in needed and int(name.split("-")[1]) not in kept_numbers:
                shutil.rmtree(os.path.join(self.directory, name))
                deleted.append(name)
        return deleted

    def close(self) -> None:
        """Close all files and give the directory back."""
        if self.reader is not None:
            self.reader.close()
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    def _collective(self, action: Any, what: str) -> List[Any]:
        return together(self._comm, self.rank, action, what)

    def _comm_result(self, action: Any, what: str) -> Any:
        """What *action* returns on rank 0, on every rank."""
        return self._collective(lambda: action() if self.rank == 0 else None, what)[0]
