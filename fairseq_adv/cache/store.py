"""The trainer's handle on the cache: refreshes, commits, checkpoints. ``docs/cache.md`` tells the protocol.

A refresh writes a new generation beside the committed one (its parent); the commit makes it current. A checkpoint
names the committed generation and the sealed shards of the one in progress; on resume the checkpoint is the truth,
whatever lies on disk besides.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from torch import Tensor

from fairseq_adv.cache.comm import Comm, LocalComm, together
from fairseq_adv.cache.commit import share_shards, write_manifest, written_ids
from fairseq_adv.cache.files import crc32
from fairseq_adv.cache.manifest import Manifest, read_manifest, write_current
from fairseq_adv.cache.opening import open_directory
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.retention import delete_generation, generation_folders, needed_generations
from fairseq_adv.cache.spec import CacheSpec
from fairseq_adv.cache.writer import GenerationWriter

logger = logging.getLogger(__name__)


class PerturbationCache:
    """Cache directory *directory* as one rank of a training run sees it; every rank makes one, in step.

    *ema* is α of the moving average, *run_id* the name by which a restarted run is the same run. Raises
    ``ValueError`` for a directory that another run holds (unless *takeover*) or that holds a cache of another
    configuration, listing the fields that differ, and if *expected_bytes* (for two generations) do not fit on the disk.
    Checkpoints in *checkpoint_folder* are asked which generations they need before one is deleted.
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
        checkpoint_folder: str = "",
    ) -> None:
        self.directory, self.spec, self.ema, self.rank, self.world_size = directory, spec, ema, rank, world_size
        self._comm: Comm = comm or LocalComm()
        self._shard_bytes = shard_bytes
        self._run = self._comm.broadcast_object(uuid.uuid4().hex[:8])
        self._owner: Optional[OwnerLock] = None
        self.reader: Optional[CacheReader] = None
        self._writer: Optional[GenerationWriter] = None
        self._failure: Optional[OSError] = None  # of a write, told to the other ranks when all meet again
        self._progress: Optional[Dict[str, Any]] = None  # generation, name, epoch, attempt, shards (all after a gather)

        def open_it() -> None:
            if rank == 0:
                self._owner = open_directory(directory, spec, run_id, takeover, expected_bytes, checkpoint_folder)

        self._collective(open_it, "opening the cache")

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

    # ---- a refresh ----------------------------------------------------------------------------------------

    def begin_refresh(self, epoch: int) -> None:
        """Every rank: start a generation, or go on with the one in progress if it is of this *epoch*.

        Raises ``RuntimeError`` if a refresh of another epoch is in progress: it must be committed first.
        """
        if self._progress is not None:
            if self._progress["epoch"] != epoch:
                raise RuntimeError(
                    f"the refresh of epoch {self._progress['epoch']} is in progress: commit it before epoch {epoch}"
                )
        else:
            number = (self.generation or 0) + 1
            name = self._rank_zero(lambda: self._make_folder(number), "starting a generation")
            self._progress = {"generation": number, "name": name, "epoch": epoch, "attempt": 0, "shards": []}
        self._writer = self._writer or self._new_writer()

    def _make_folder(self, number: int) -> str:
        name = _folder_name(number)
        os.makedirs(os.path.join(self.directory, name))
        return name

    def _new_writer(self) -> GenerationWriter:
        assert self._progress is not None
        folder, attempt = os.path.join(self.directory, self._progress["name"]), int(self._progress["attempt"])
        prefix = f"w{self.rank:04d}-{attempt:03d}-{self._run}"
        return GenerationWriter(folder, prefix, attempt, self.spec, self.ema, self.reader, self._shard_bytes)

    def put(
        self,
        ids: Sequence[int],
        update: int,
        src: Optional[Sequence[Tensor]] = None,
        tgt: Optional[Sequence[Tensor]] = None,
    ) -> List[Dict[str, Tensor]]:
        """Average the new perturbations of *ids* (``len_i x D`` each) into the generation in progress.

        Returns the averages, one ``{side: len_i x D}`` for each id, before they are rounded to the format on disk.
        Raises ``ValueError`` for values that must not be cached. A disk that fails is an ``OSError`` here for one rank
        alone; among several, it is logged here and raised on all of them by :meth:`prepare_checkpoint` or
        :meth:`commit`, so that none waits for a rank that has gone.
        """
        if self._writer is None:
            raise RuntimeError("no refresh is in progress: call begin_refresh first")
        if self._failure is not None:
            return []
        given = {"src": src, "tgt": tgt}
        try:
            return self._writer.put(ids, update, {side: rows for side, rows in given.items() if rows is not None})
        except OSError as error:
            if self.world_size == 1:
                raise
            self._failure = error
            logger.error(
                "rank %d cannot write to the cache, training stops at the next checkpoint: %s", self.rank, error
            )
            return []

    def prepare_checkpoint(self) -> None:
        """Every rank: seal what is buffered, so that :meth:`state_dict` names every record so far."""
        if self._progress is not None:
            self._seal_and_gather()

    def _seal_and_gather(self) -> None:
        assert self._progress is not None
        writer = self._writer = self._writer or self._new_writer()

        def seal() -> List[Dict[str, Any]]:
            if self._failure is not None:
                raise self._failure
            writer.seal()
            return writer.entries

        known = {entry["name"]: entry for entry in self._progress["shards"]}
        for entries in self._collective(seal, "writing perturbations to the cache"):
            known.update({entry["name"]: entry for entry in entries})
        self._progress["shards"] = sorted(known.values(), key=lambda e: (e["attempt"], e["name"]))

    def commit(self, expected_ids: Optional[Iterable[int]] = None) -> int:
        """Every rank, after a refresh: make its generation the current one and return its number.

        Members of *expected_ids* that no rank wrote keep their old perturbation. Fails on every rank alike, and leaves
        the parent as it was, if two ranks wrote one id, a rank could not write, or another run took the directory.
        """
        if self._progress is None:
            raise RuntimeError("no refresh is in progress")
        self._seal_and_gather()
        manifest = Manifest(**self._rank_zero(lambda: self._commit(expected_ids), "committing the cache"))
        self._pin(manifest)
        self._progress = self._writer = None
        return manifest.generation

    def _commit(self, expected_ids: Optional[Iterable[int]]) -> Dict[str, Any]:
        """Rank 0: write ``MANIFEST.json`` and ``CURRENT``, unless the directory belongs to another run now."""
        assert self._progress is not None and self._owner is not None
        self._owner.check()
        manifest = write_manifest(
            self.directory, self._progress, self.spec, self.ema, self.reader, expected_ids, self._shard_bytes
        )
        self._owner.check()
        write_current(self.directory, manifest)
        return manifest.__dict__

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
        """Every rank: go back to what a checkpoint names; shards sealed after it are forgotten.

        Raises ``ValueError`` if the cache no longer holds what the checkpoint names, or holds it damaged.
        """
        manifest, progress = self._rank_zero(lambda: self._restore(state), "resuming the cache")
        if self.reader is not None:
            self.reader.close()
        self.reader = self._writer = self._failure = None
        if manifest is not None:
            self._pin(Manifest(**manifest))
        self._progress = progress

    def _restore(self, state: Dict[str, Any]) -> Tuple[Optional[Dict[str, Any]], Optional[Dict[str, Any]]]:
        """Rank 0: the manifest and the refresh that *state* names; the latter goes on in a folder of its own."""
        committed, progress = state.get("committed"), state.get("in_progress")
        for part in filter(None, (committed, progress)):
            if part["name"] not in generation_folders(self.directory):
                raise ValueError(
                    f"the checkpoint needs generation {part['generation']} of the cache ({part['name']}), which "
                    f"{self.directory} does not hold: put the directory back, or tell where it is with --cache-dir, or "
                    "give up what was cached and count epochs anew with --reset-dataloader"
                )
        manifest = None
        if committed is not None:
            manifest = read_manifest(self.directory, committed["name"], committed["manifest_crc32"]).__dict__
        if progress is not None:
            written_ids(self.directory, progress, self.spec)
            name = _folder_name(progress["generation"])
            share_shards(self.directory, progress, name)
            progress = {**progress, "name": name, "attempt": int(progress["attempt"]) + 1}
        return manifest, progress

    def _pin(self, manifest: Manifest) -> None:
        """Every rank: read from the generation of *manifest* from now on."""

        def pin() -> None:
            reader = CacheReader(self.directory, manifest)
            if self.reader is not None:
                self.reader.close()
            self.reader = reader

        self._collective(pin, f"opening generation {manifest.generation} of the cache")

    # ---- the end ------------------------------------------------------------------------------------------

    def delete_superseded(self) -> List[str]:
        """Rank 0 deletes the generations that neither this run nor a checkpoint on disk needs; their names.

        Call it before :meth:`begin_refresh`, so that the disk never holds more than the checkpoints' generations and
        the new one. It does not communicate, and what goes wrong is logged only: nothing depends on it.
        """
        deleted: List[str] = []
        if self._owner is None:
            return deleted
        needed = {self.reader.manifest.name} if self.reader is not None else set()
        needed |= {self._progress["name"]} if self._progress is not None else set()
        try:
            if set(generation_folders(self.directory)) <= needed:
                return deleted
            self._owner.check()
            needed |= needed_generations(self.directory)
            for name in generation_folders(self.directory):
                if name not in needed:
                    delete_generation(self.directory, name)
                    deleted.append(name)
        except (OSError, ValueError) as error:
            logger.warning("superseded perturbations stay in %s: %s", self.directory, error)
        if deleted:
            logger.info("deleted superseded perturbations: %s", ", ".join(deleted))
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

    def _rank_zero(self, action: Any, what: str) -> Any:
        """What *action* returns on rank 0, on every rank."""
        return self._collective(lambda: action() if self.rank == 0 else None, what)[0]


def _folder_name(generation: int) -> str:
    return f"gen-{generation:06d}-{uuid.uuid4().hex[:8]}"
