"""The trainer's handle on the cache: refreshes, commits, checkpoints. ``docs/cache.md`` tells the protocol.

A refresh writes a new generation beside the committed one (its parent); the commit makes it current. A checkpoint
names the committed generation and the sealed shards of the one in progress; on resume the checkpoint is the truth,
whatever lies on disk besides.
"""

from __future__ import annotations

import os
import uuid
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from torch import Tensor

from fairseq_adv.cache.comm import Comm, LocalComm
from fairseq_adv.cache.commit import commit_everywhere, make_manifest
from fairseq_adv.cache.exchange import exchange_shards
from fairseq_adv.cache.files import crc32
from fairseq_adv.cache.manifest import Manifest
from fairseq_adv.cache.opening import open_everywhere
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.placement import find_places
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.resuming import checkpoint_state, restore
from fairseq_adv.cache.retention import delete_others, needed_on_rank_zero
from fairseq_adv.cache.spec import CacheSpec
from fairseq_adv.cache.writer import GenerationWriter
from fairseq_adv.cache.writing import Averages, Refreshed, Writing


class PerturbationCache:
    """Cache directory *directory* as one rank of a training run sees it; every rank makes one, in step.

    *ema* is α of the moving average, *run_id* the name by which a restarted run is the same run. Raises
    ``ValueError`` for a directory that another run holds (unless *takeover*) or that holds a cache of another
    configuration, listing the fields that differ, and if *expected_bytes* (for two generations) do not fit on the disk.
    Checkpoints in *checkpoint_folder* are asked which generations they need before one is deleted. With *placement*
    ``node-local`` the nodes' directories are different ones, kept equal over the network (:mod:`.placement`).
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
        placement: str = "shared",
    ) -> None:
        self.directory, self.spec, self.ema, self.rank, self.world_size = directory, spec, ema, rank, world_size
        comm, self._shard_bytes = comm or LocalComm(), shard_bytes
        self._run, self._folders = comm.broadcast_object(uuid.uuid4().hex[:8]), 0
        self.reader: Optional[CacheReader] = None
        self._writing = Writing(rank, alone=world_size == 1)
        self._progress: Optional[Dict[str, Any]] = None  # generation, name, epoch, attempt, shards (all after a gather)

        self._places = find_places(comm, rank, world_size, directory, placement)
        self._owner: Optional[OwnerLock] = open_everywhere(
            self._places, spec, run_id, takeover, expected_bytes, checkpoint_folder
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
            name = self._new_name(number)
            self._places.on_keepers(lambda: os.makedirs(os.path.join(self.directory, name)), "starting a generation")
            self._progress = {"generation": number, "name": name, "epoch": epoch, "attempt": 0, "shards": []}
        self._writing.writer = self._writing.writer or self._new_writer()

    def _new_name(self, number: int) -> str:
        """A folder name for generation *number* that never was; the same on all ranks."""
        self._folders += 1
        return f"gen-{number:06d}-{crc32(f'{self._run} {self._folders}'.encode()):08x}"

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
    ) -> Averages:
        """Average the new perturbations of *ids* (``len_i x D`` each) into the generation in progress.

        Returns the averages, one ``{side: len_i x D}`` for each id, before they are rounded to the format on disk.
        Raises ``ValueError`` for values that must not be cached. A disk that fails is an ``OSError`` here for one rank
        alone; among several, it is logged here and raised on all of them by :meth:`prepare_checkpoint` or
        :meth:`commit`, so that none waits for a rank that has gone.
        """
        given = {"src": src, "tgt": tgt}
        return self._writing.put(ids, update, {side: rows for side, rows in given.items() if rows is not None})

    def put_later(self, update: int, collect: Callable[[], Refreshed]) -> Future[Averages]:
        """:meth:`put` what *collect* returns, on a thread of its own; the future has the averages.

        At most ``WRITES_WAITING`` wait, then this waits. What fails there is raised here at the next call for one rank
        alone; among several it is logged, and raised on all of them by :meth:`prepare_checkpoint` or :meth:`commit`.
        """
        return self._writing.put_later(update, collect)

    def prepare_checkpoint(self) -> None:
        """Every rank: seal what is buffered, so that :meth:`state_dict` names every record so far."""
        if self._progress is not None:
            self._seal_and_gather()

    def _seal_and_gather(self) -> None:
        assert self._progress is not None
        self._writing.writer = self._writing.writer or self._new_writer()
        known = {entry["name"] for entry in self._progress["shards"]}
        sealed = self._places.on_ranks(self._writing.seal, "writing perturbations to the cache")
        fresh = [entry for entries in sealed for entry in entries if entry["name"] not in known]
        self._progress["shards"] = sorted([*self._progress["shards"], *fresh], key=lambda e: (e["attempt"], e["name"]))
        exchange_shards(self._places, self._progress["name"], fresh)

    def commit(self, expected_ids: Optional[Iterable[int]] = None) -> int:
        """Every rank, after a refresh: make its generation the current one and return its number.

        Members of *expected_ids* that no rank wrote keep their old perturbation. Fails on every rank alike, and leaves
        the parent as it was, if two ranks wrote one id, a rank could not write, or another run took the directory.
        """
        if self._progress is None:
            raise RuntimeError("no refresh is in progress")
        self._seal_and_gather()
        progress = self._progress

        def make() -> Manifest:
            return make_manifest(
                self.directory, progress, self.spec, self.ema, self.reader, expected_ids, self._shard_bytes
            )

        manifest = commit_everywhere(self._places, self._owner, make)
        self._pin(manifest)
        self._progress = None
        self._writing.end()
        return manifest.generation

    # ---- checkpoints --------------------------------------------------------------------------------------

    def state_dict(self) -> Dict[str, Any]:
        """Plain containers that name the committed generation and the sealed part of the one in progress."""
        return checkpoint_state(None if self.reader is None else self.reader.manifest, self._progress)

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Every rank: go back to what a checkpoint names; shards sealed after it are forgotten.

        Raises ``ValueError`` if the cache no longer holds what the checkpoint names, or holds it damaged.
        """
        self._writing.forget()
        name = self._new_name((state.get("in_progress") or {"generation": 0})["generation"])
        manifest, progress = restore(self._places, state, self.spec, name)
        if self.reader is not None:
            self.reader.close()
        self.reader = None
        if manifest is not None:
            self._pin(manifest)
        self._progress = progress

    def _pin(self, manifest: Manifest) -> None:
        """Every rank: read from the generation of *manifest* from now on."""

        def pin() -> None:
            reader = CacheReader(self.directory, manifest)
            if self.reader is not None:
                self.reader.close()
            self.reader = reader

        self._places.on_ranks(pin, f"opening generation {manifest.generation} of the cache")

    def delete_superseded(self) -> List[str]:
        """Each keeper deletes the generations that neither this run nor a checkpoint on disk needs; their names.

        Every rank calls it, before :meth:`begin_refresh`, so that the disk never holds more than the checkpoints'
        generations and the new one. What goes wrong is logged only: nothing depends on it.
        """
        needed = {self.reader.manifest.name} if self.reader is not None else set()
        needed |= {self._progress["name"]} if self._progress is not None else set()
        if self._places.several:
            others = needed_on_rank_zero(self._places)  # checkpoints may lie on its node alone
            if others is None:
                return []
            needed |= others
        return [] if self._owner is None else delete_others(self.directory, needed, self._owner)

    def close(self) -> None:
        """Close all files and give the directory back."""
        self._writing.close()
        if self.reader is not None:
            self.reader.close()
        if self._owner is not None:
            self._owner.release()
            self._owner = None
