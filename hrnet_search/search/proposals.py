"""The networks of a search: proposed by an Optuna sampler, and only those that are worth training.

What cannot be built, is above a limit or was proposed before is told to the sampler at once and
never trained. Every proposal is kept in `study.db`; the sampler itself works on a copy in memory,
and is made anew for each proposal from the search's seed and the proposal's number. So a search
that was killed goes on with the proposals that it would have made.
"""

import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..arch import ArchSpec
from ..result import METRICS
from ..space import MAX_GRID, Value
from ..study import Study
from .neighbours import Neighbours
from .storage import decoded_params, distributions, encoded_params, open_networks

PATIENCE = 20  # proposals in a row that are nothing new, before one is drawn at random
DRAWS = 1000  # at random from a space too large to go through, before the search ends
STARTUP = 10  # networks at random before any are made of others (Optuna's default)

Fate = Literal["new", "duplicate", "infeasible"]
Measure = Callable[[ArchSpec], Mapping[str, float]]
Values = list[float] | None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A network to train.

    Args:
        number: Of the proposal, the same in Optuna's study of the networks.
        params: Knob -> value.
        key: Hash of the network.
    """

    number: int
    params: dict[str, Value]
    key: str


class Proposals:
    """The sampler of a study that is a search, with all that it has proposed and was told.

    Args:
        file: `study.db`; None keeps the proposals in memory alone.
        study: The study.
        measure: Network -> its profile, measured or looked up.

    Attributes:
        kept: The networks to train, by number.
        ended: Why there are no more networks; empty while there may be.
        dropped: What was wrong with entries of `search.start`.
    """

    def __init__(self, file: Path | None, study: Study, measure: Measure) -> None:
        self.study, self.measure = study, measure
        self.kept: dict[int, Proposal] = {}
        self.ended = ""
        self.dropped: list[str] = []
        self._stored = open_networks(file, study)
        self._distributions = distributions(study.space)
        self._first: dict[str, int] = {}  # key -> the proposal that was new
        self._keys: dict[str, str] = {}  # knob values as text -> key
        self._sampler = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(),
            study_name=self._stored.study_name,
            directions=[METRICS[key].direction for key in study.goals],
        )
        for trial in self._stored.get_trials(deepcopy=False):
            self._sampler.add_trial(trial)
            self._remember(trial)
        self.ended = self._stored.user_attrs.get("ended", "")
        self._parents = self._stored.user_attrs.get("parents", {})
        for name, value in self._parents.items():
            self._sampler._storage.set_study_system_attr(self._sampler._study_id, name, value)

    def __len__(self) -> int:
        return len(self._trials())

    def counts(self) -> dict[Fate, int]:
        """How many proposals there were of each fate."""
        fates = [trial.user_attrs.get("fate", "new") for trial in self._trials()]
        return {fate: fates.count(fate) for fate in ("new", "duplicate", "infeasible")}

    def next(self) -> Proposal | None:
        """The next network that is worth training; None, and `ended` says why, if there is none."""
        if self.ended:
            return None
        for _ in range(PATIENCE + len(self.study.search.start)):
            if proposal := self._settle(self._ask()):
                return proposal
        return self._at_random()

    def open(self) -> list[int]:
        """Numbers of the networks of which nothing was told yet."""
        return [t.number for t in self._trials() if t.state == TrialState.RUNNING]

    def tell(self, number: int, state: TrialState, values: Values = None) -> None:
        """What became of a network: its values at full length if the state is complete."""
        for study in (self._stored, self._sampler):
            study.tell(number, values, state=state)

    def restore(self, proposals: Mapping[int, Proposal]) -> None:
        """Enter proposals that trials' folders know of, but a new `study.db` does not.

        Those between them, which were not trained, are gone; their numbers stay taken.
        """
        for number in range(len(self), max(proposals, default=-1) + 1):
            found = proposals.get(number)
            if found is None:
                trial = create_trial(state=TrialState.FAIL, user_attrs={"fate": "lost"})
            else:
                trial = self._kept_trial(found)
            for study in (self._sampler, self._stored):
                study.add_trial(trial)
            self._remember(self._trials()[number])

    def _kept_trial(self, proposal: Proposal) -> FrozenTrial:
        return create_trial(
            state=TrialState.RUNNING,
            params=encoded_params(proposal.params),
            distributions=self._distributions,
            user_attrs={"fate": "new", "key": proposal.key, "params": proposal.params},
        )

    def _trials(self) -> list[FrozenTrial]:
        return self._sampler.get_trials(deepcopy=False)

    def _remember(self, trial: FrozenTrial) -> None:
        attributes = trial.user_attrs
        fate = attributes.get("fate")
        if trial.number < len(self.study.search.start) and fate in ("infeasible", "duplicate"):
            reason = f"search.start.{trial.number} is not trained: {attributes['reason']}"
            self.dropped.append(reason)
        if fate == "new":
            proposal = Proposal(
                number=trial.number, params=attributes["params"], key=attributes["key"]
            )
            self.kept[trial.number] = proposal
            self._first[proposal.key] = trial.number

    def _ask(self, params: Mapping[str, Value] | None = None) -> optuna.Trial:
        """A trial with values for every knob: these, those of `search.start`, or the sampler's."""
        number, start = len(self), self.study.search.start
        if params is None and number < len(start):
            params = start[number]
        if params is not None:
            self._sampler.enqueue_trial(encoded_params(params))
        self._sampler.sampler = _sampler(self.study, number)
        trial = self._sampler.ask(self._distributions)
        self._keep_parents()
        return trial

    def _keep_parents(self) -> None:
        """Whom evolution has chosen as parents of a generation: Optuna has them in its storage."""
        attributes = self._sampler._storage.get_study_system_attrs(self._sampler._study_id)
        parents = {name: value for name, value in attributes.items() if "parent" in name}
        if parents != self._parents:
            self._stored.set_user_attr("parents", parents)
            self._parents = parents

    def _settle(self, trial: optuna.Trial) -> Proposal | None:
        """Decide a proposal and keep it; None if it is not to be trained."""
        params = decoded_params(self.study.space, trial.params)
        fate, attributes, constraints = self._judge(params)
        for name, value in constraints.items():
            trial.set_constraint(name, value)
        for name, value in {"fate": fate, "params": params, **attributes}.items():
            trial.set_user_attr(name, value)
        if fate != "new":
            state, values = TrialState.PRUNED, None
            if fate == "duplicate":
                state, values = self._answer(attributes["duplicate_of"])
            self._sampler.tell(trial, values, state=state)
        frozen = self._trials()[trial.number]
        self._stored.add_trial(frozen)
        self._remember(frozen)
        return self.kept.get(trial.number)

    def _answer(self, number: int) -> tuple[TrialState, Values]:
        """What is known of the network already; nothing while it is trained."""
        first = self._trials()[number]
        if first.state == TrialState.COMPLETE:
            return TrialState.COMPLETE, first.values
        return TrialState.PRUNED, None

    def _judge(self, params: dict[str, Value]) -> tuple[Fate, dict[str, Any], dict[str, float]]:
        """Fate, what to note of it, and how far each limit is exceeded as a share (0: met)."""
        if obstacle := self.study.obstacle(params):
            return "infeasible", {"reason": obstacle}, {"obstacle": 1.0}
        costs, limits = self.study.costs(params), self.study.space.limits
        excess = {k: costs[k] / most - 1 for k, most in limits.items() if k in costs}
        if above := _above(excess, limits, costs):
            return "infeasible", {"reason": above}, excess
        network = self.study.network(params)
        assert isinstance(network, ArchSpec)
        attributes: dict[str, Any] = {"key": network.key}
        if network.key in self._first:
            first = self._first[network.key]
            reason = f"the network of proposal {first}"
            return "duplicate", attributes | {"duplicate_of": first, "reason": reason}, excess
        measured = {f"profile.{k}": v for k, v in self.measure(network).items()}
        excess |= {k: measured[k] / most - 1 for k, most in limits.items() if k not in costs}
        if above := _above(excess, limits, measured):
            return "infeasible", attributes | {"reason": above}, excess
        return "new", attributes, excess

    def _at_random(self) -> Proposal | None:
        """A network drawn evenly from those that were not proposed yet, if one can be found."""
        rng = random.Random(f"{self.study.search.seed}, {len(self)}")
        measured: set[str] = set()  # too slow, so that it is not tried twice
        for params in _drawn(self.study, rng):
            if not self.study.is_feasible(params):
                continue
            if self._key(params) in self._first or self._key(params) in measured:
                continue
            if proposal := self._settle(self._ask(params)):
                return proposal
            measured.add(self._key(params))
        self.ended = (
            f"all {len(self.kept)} networks of the space that can be trained here "
            "have been proposed"
            if self.study.space.size <= MAX_GRID
            else f"none of {DRAWS} networks drawn at random is new and within the limits; "
            "a wider space or higher space.limits would have more"
        )
        self._stored.set_user_attr("ended", self.ended)
        return None

    def _key(self, params: dict[str, Value]) -> str:
        text = str(params)
        if text not in self._keys:
            self._keys[text] = self.study.network(params).key
        return self._keys[text]


def _drawn(study: Study, rng: random.Random) -> Iterator[dict[str, Value]]:
    """All knob values in random order, or some of a space too large for that."""
    space = study.space
    if space.size <= MAX_GRID:
        everything = list(space.params())
        rng.shuffle(everything)
        yield from everything
        return
    yield from itertools.islice(space.draws(rng), DRAWS)


def _above(
    excess: Mapping[str, float], limits: Mapping[str, float], costs: Mapping[str, float]
) -> str:
    """Which limits are exceeded, in words; empty if none is."""
    over = [key for key, share in excess.items() if share > 0]
    return ", ".join(f"{key} is {costs[key]:.4g}, above {limits[key]:.4g}" for key in over)


class Sequence(optuna.samplers.QMCSampler):
    """Sobol's sequence, entered at a proposal's number; Optuna would count in its storage."""

    def __init__(self, number: int, *, seed: int) -> None:
        super().__init__(
            seed=seed,
            scramble=True,
            independent_sampler=optuna.samplers.RandomSampler(seed),  # the very first point
            warn_asynchronous_seeding=False,
        )
        self.number = number

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All knobs, once there is a proposal; Optuna's own takes a trial of `search.start` that
        names some of them for a condition, and warns of it.
        """
        others = (t for t in study.get_trials(deepcopy=False) if t.number != trial.number)
        return next((dict(t.distributions) for t in others if t.distributions), {})

    def _find_sample_id(self, *_: Any) -> int:
        return self.number


def _sampler(study: Study, number: int) -> BaseSampler:
    """A sampler whose random numbers depend on the search's seed and the proposal's number."""
    search = study.search
    seed = random.Random(f"{search.seed}:{number}").getrandbits(31)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if search.sampler == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=STARTUP,
                multivariate=True,
                group=True,
            )
        if search.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        if search.sampler == "qmc":  # one sequence, so one seed
            return Sequence(number, seed=search.seed)
        if search.sampler in ("local", "evolution"):
            return Neighbours(study, search.sampler, seed=seed, startup=STARTUP)
        kinds = {
            "random": optuna.samplers.RandomSampler,
            "nsga2": optuna.samplers.NSGAIISampler,
            "nsga3": optuna.samplers.NSGAIIISampler,
        }
        return kinds[search.sampler](seed=seed)
