"""Why did a trial come out so? From a results folder to an explanation of one of its trials.

Rule 1: nothing is run again but the model: what is told of the lab comes from the record and from the captured packets.
Rule 2: the network is planned again from `inputs/` of the folder, so from what the run was made of, whatever the files
        of the same names say now.
Rule 3: what is not there (packets that were not kept, a model of an external program) is said to be missing.
"""

from __future__ import annotations

from pathlib import Path

from testbed import __version__
from testbed.errors import UsageError
from testbed.lab import pcapng
from testbed.lab.capture import monotonic_of
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import CellPlan, TrialSettings, plan_cell, settings_of
from testbed.results.explanation import Explanation, Theory
from testbed.results.folder import CAPTURES, capture_name, read_records
from testbed.results.inputs import INPUTS, Manifest, read_inputs
from testbed.results.record import Record
from testbed.sim.trial import can_play, play
from testbed.spec.load import load_scenario
from testbed.spec.loader import LoadedScenario
from testbed.spec.places import FileKind
from testbed.traversal.events import EventError, Exhausted, Failed, from_json
from testbed.trial.explain_choice import choose
from testbed.trial.explain_events import in_lab, in_model, not_applied
from testbed.trial.explain_flows import Events, Traffic
from testbed.trial.explain_journeys import Journey, captured, modelled, sightings
from testbed.trial.explain_sentence import Case, sentence
from testbed.trial.explain_theory import theory
from testbed.trial.explain_timeline import timeline

NOT_KEPT = "no packets of this trial were kept; `run --capture all` keeps those of direct trials too"


def explain(folder: Path, word: str | None) -> Explanation:
    """The trial that `word` names (see explain_choice.py). Raises UsageError, SpecError."""
    records, notes = read_records(folder)
    manifest, loaded = _inputs(folder)
    record = choose(records, word)
    if manifest.testbed != __version__:
        notes.append(f"the run was made by testbed {manifest.testbed}, the model is that of {__version__}")
    spec = next((cell for cell in loaded.cells if cell.id == record.cell), None)
    if spec is None:
        raise UsageError(f"{folder}: its scenario has no cell {record.cell!r} (any more)")
    plan = plan_cell(spec)
    said = read_events(record)
    journeys = _captured(folder, record, plan, said, notes)
    settings = settings_of(loaded.scenario)
    return build(manifest.run, record, plan, said, journeys, settings, notes)


def build(
    run: str,
    record: Record,
    plan: CellPlan,
    said: Events,
    journeys: list[Journey] | None,
    settings: TrialSettings,
    notes: list[str],
) -> Explanation:
    """The explanation of a trial. `journeys`: of its packets, where they were kept."""
    happened = in_lab(record, plan)
    seen = Traffic(plan, said, journeys, happened) if journeys is not None else None
    told, supposed = _theory(record, plan, said, seen, settings, notes)
    traffic = seen or supposed or Traffic(plan, said, [], happened)
    is_supposed = seen is None and supposed is not None
    why = sentence(Case(record, said, traffic))
    if is_supposed and record.outcome in (Outcome.RELAYED, Outcome.FAILED):
        why = f"{why[:-1]} (where packets ended is the model's word)."
    return Explanation(
        run=run,
        cell=record.cell,
        index=record.index,
        attempt=record.attempt,
        seed=record.seed,
        factors=record.factors,
        outcome=record.outcome,
        reason=record.reason,
        sentence=why,
        told_by="capture" if seen is not None else "model" if is_supposed else "record",
        timeline=timeline(said, traffic, told=seen is not None),
        flows=traffic.flows(),
        nats={name: dict(report.dropped) for name, report in record.nats.items()},
        theory=told,
        notes=(*notes, *not_applied(record), *record.warnings),
    )


def read_events(record: Record) -> Events:
    """What both ends said, as values."""
    try:
        return {
            name: tuple(from_json(event.model_dump(mode="json")) for event in events)
            for name, events in record.agents.items()
        }
    except EventError as error:
        raise UsageError(f"trial {record.index} of {record.cell}: {error}") from None


def _theory(
    record: Record, plan: CellPlan, said: Events, seen: Traffic | None, settings: TrialSettings, notes: list[str]
) -> tuple[Theory | None, Traffic | None]:
    """What the model says of it, and its traffic; nothing of trials that say nothing about the peers."""
    if not record.outcome.counts:
        return None, None
    if why := can_play(plan):
        notes.append(why)
        return None, None
    played = play(plan, settings, record.seed)
    model = Traffic(plan, played.events, modelled(played, plan), in_model(played))
    return theory(record, said, seen, played, model), model


def _inputs(folder: Path) -> tuple[Manifest, LoadedScenario]:
    if not (folder / INPUTS).is_dir():
        raise UsageError(f"{folder} is not a results folder: it has no {INPUTS}/")
    manifest, files = read_inputs(folder)
    scenarios = [name for name in files if name.startswith(f"{FileKind.SCENARIO.folder}/")]
    if len(scenarios) != 1:
        raise UsageError(f"{folder / INPUTS}: there is not one scenario but {len(scenarios)}")
    return manifest, load_scenario(str(folder / INPUTS / scenarios[0]), seed=manifest.seed)


def _captured(folder: Path, record: Record, plan: CellPlan, said: Events, notes: list[str]) -> list[Journey] | None:
    """The journeys of the trial's packets; None where they are not known, and then `notes` say why."""
    path = folder / CAPTURES / capture_name(record.key)
    try:
        recorded = pcapng.decode(path.read_bytes())
    except FileNotFoundError:
        notes.append(NOT_KEPT)
        return None
    except (OSError, UsageError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return None
    shift = monotonic_of(recorded.comment)
    if shift is None:
        notes.append(f"{path.name} does not say how its clock stands to that of the events")
        return None
    given_up = {
        name: event.t for name, events in said.items() for event in events if isinstance(event, (Exhausted, Failed))
    }
    return captured(sightings(recorded, shift, plan.network), plan, given_up)
