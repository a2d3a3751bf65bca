"""What moves a rollout: the operator's orders, and carrying out what is due.

The intention is written down first, then it is signed and published, then it is written down that it was done. Whoever
finds an intention that was not carried out, `hanse-center serve` or the next order, carries it out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.mqtt.publishing import Publisher
from center.registry import Registry
from center.releases.rollout import Rollout, State
from center.releases.rollouts import Rollouts, moving
from center.releases.staging import ApprovalNeededError, Older, Staging
from center.settings import CenterSettings
from center.signing.metadata import key_id
from protocol.errors import BadInputError
from protocol.release import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Orders in a center's folder."""

    directory: Path
    settings: CenterSettings
    registry: Registry
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.registry)

    def pause(self) -> Rollout:
        """Offer it to nobody more for now.

        Raises:
            BadInputError: nothing is on its way.
        """
        with moving(self.directory):
            was = self._active()
            return self._write(was.paused("by hand", now_ms=self.now_ms()), was=was)

    def resume(self) -> Rollout:
        """Go on.

        Raises:
            BadInputError: nothing is paused.
        """
        with moving(self.directory):
            was = self._active()
            return self._write(was.resumed(now_ms=self.now_ms()), was=was)

    def abort(self, voice: Callable[[], Publisher]) -> Rollout:
        """End it: who has it goes back.

        Args:
            voice: connects, where something has to be published.

        Raises:
            BadInputError: nothing is on its way.
            ApprovalNeededError: the way back has to be approved; it waits for that.
            UnavailableError: the broker did not take it; the center goes on with it.
        """
        with moving(self.directory):
            was = self._active()
            ended = self._write(was.going_back("aborted by hand", now_ms=self.now_ms(), state=State.ABORTED), was=was)
            if ended.active:
                return self.carry_out(ended, voice())
            self.withdraw(ended, voice())
            return ended

    def approve(self, keys: Sequence[Ed25519PrivateKey], voice: Callable[[], Publisher]) -> Rollout:
        """Sign what waits for approval.

        Raises:
            BadInputError: nothing waits, or these keys do not suffice; it waits on.
            UnavailableError: the broker did not take it; the center goes on with it.
        """
        with moving(self.directory):
            was = self._active()
            connected = voice()
            approved = self._write(was.approved([key_id(key) for key in keys], now_ms=self.now_ms()), was=was)
            return self.carry_out(approved, connected, approvals=keys)

    def roll_back(
        self, voice: Callable[[], Publisher], *, to: int | None = None, approvals: Sequence[Ed25519PrivateKey] = ()
    ) -> Rollout:
        """Give everybody who was offered the newest release an older one, at once.

        Args:
            to: which; what was in force before by default.

        Returns:
            The release that was taken back; its `successor` names the older files.

        Raises:
            BadInputError: there is nothing to go back from, or to.
            ApprovalNeededError: it has to be approved; it waits for that.
            UnavailableError: the broker did not take it; the center goes on with it.
        """
        with moving(self.directory):
            was = self._offered()
            target = was.previous if to is None else to
            if target == 0:
                raise BadInputError(
                    f"release {was.version} is the first one", advice="hanse-center rollout abort, or release another"
                )
            if target not in self.registry.releases(Kind.BUNDLE) or target >= was.version:
                raise BadInputError(
                    f"there is no release {target} before {was.version}", advice="hanse-center rollout status --all"
                )
            connected = voice()
            why = f"rolled back by hand to release {target}"
            back = self._write(was.going_back(why, now_ms=self.now_ms(), to=target), was=was)
            return self.carry_out(back, connected, approvals=approvals)

    def withdraw(self, rollout: Rollout, voice: Publisher) -> None:
        """Take a candidate off the list that nobody will be offered; a crash before leaves that to the next release.

        Raises:
            UnavailableError: the broker did not take it.
        """
        self._staging(voice).withdraw_candidate(rollout)

    def carry_out(self, rollout: Rollout, voice: Publisher, *, approvals: Sequence[Ed25519PrivateKey] = ()) -> Rollout:
        """Sign and publish what is due. Call it only within `moving`.

        Raises:
            BadInputError: it cannot be signed; where approvals are missing, it waits for them.
            UnavailableError: the broker did not take it; call again.
        """
        try:
            if not rollout.goes_back:
                self._staging(voice, approvals).open_stage(rollout, audit=self.registry.audit_head())
                return self._write(rollout.published(now_ms=self.now_ms()), was=rollout)
            return self._go_back(rollout, voice, approvals)
        except BadInputError as error:
            if approvals or isinstance(error, ApprovalNeededError):
                self._write(rollout.needs_approval(now_ms=self.now_ms()), was=rollout)
            raise

    def _go_back(self, rollout: Rollout, voice: Publisher, approvals: Sequence[Ed25519PrivateKey]) -> Rollout:
        older = self._older(rollout.previous)
        successor = self._staging(voice, approvals).go_back(rollout, older, audit=self.registry.audit_head())
        now_ms = self.now_ms()
        done = rollout.published(now_ms=now_ms, successor=successor)
        if older is None or not successor:
            return self._write(done, was=rollout)
        assert rollout.reached is not None
        before = self.rollouts.find(older.version)
        replacing = Rollout.gone_back(
            successor,
            older.sha256,
            previous=before.previous if before else 0,
            place=rollout.reached.place,
            instead_of=rollout.version,
            now_ms=now_ms,
        )
        card = self.registry.releases(Kind.BUNDLE)[older.version]
        told = {**card, "files_of": card.get("files_of", older.version)}
        self.registry.add_release(Kind.BUNDLE, successor, sha256=older.sha256, card=told, now_ms=now_ms)
        return self._write(done, was=rollout, replacing=replacing)

    def _older(self, version: int) -> Older | None:
        card = self.registry.releases(Kind.BUNDLE).get(version)
        if card is None:
            return None
        return Older(version=version, sha256=card["sha256"], folder=self.directory / "releases" / card["folder"])

    def _active(self) -> Rollout:
        active = self.rollouts.active()
        if active is None:
            raise BadInputError("no release is on its way", advice="hanse-center rollout status")
        return active

    def _offered(self) -> Rollout:
        """The newest release that anybody has been offered; a candidate that stands in its way is ended."""
        active = self.rollouts.active()
        if active is not None and active.reached is not None:
            return active
        newest = self.rollouts.newest_finished()
        if newest is None:
            raise BadInputError("no release has reached anybody yet", advice="hanse-center rollout status")
        if active is not None:
            why = f"release {newest.version} is rolled back"
            self._write(active.going_back(why, now_ms=self.now_ms(), state=State.ABORTED), was=active)
        return newest

    def _staging(self, voice: Publisher, approvals: Sequence[Ed25519PrivateKey] = ()) -> Staging:
        return Staging(
            directory=self.directory,
            settings=self.settings,
            voice=voice,
            in_use=self.rollouts.in_use(),
            approvals=approvals,
        )

    def _write(self, rollout: Rollout, *, was: Rollout, replacing: Rollout | None = None) -> Rollout:
        self.rollouts.save(rollout, was=was, replacing=replacing)
        return rollout
