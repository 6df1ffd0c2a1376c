// The header: what the run is, what it is doing, and the numbers one looks at first.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Part, tally, type Round, type Row } from "./board";
import { elapsed, page, running, useBoard } from "./page";
import { doing, measured, plain, seconds, size } from "./words";

const CONNECTIONS = {
  connecting: "connecting",
  open: "live",
  away: "hub away, trying again",
  refused: "refused",
  ended: "the run is over",
};

/** The round with the best metric; it stays on the board when others are thinned out. */
export function bestRow(rows: Row[]): Row | undefined {
  return rows.findLast((row) => row.best);
}

export function Top() {
  const ref = useBoard<HTMLElement>(Part.head | Part.round | Part.lanes | Part.rows | Part.link);
  const { head, round, rows, edges } = page.board!;
  const sum = round ? tally(round) : null;
  const open = round !== null && !round.outcome;
  const last = rows.at(-1);
  const best = bestRow(rows);
  const { metric } = head;
  const number = round ? Math.max(round.number, head.committed) : head.committed;

  useEffect(() => {
    document.title = `${number}/${head.rounds} · ${plain(head.name || head.run)} · Fedhub`;
  }, [number, head.rounds, head.name, head.run]);

  return (
    <header ref={ref} class="top">
      <div class="title">
        <h1 data-testid="run">
          <bdi>{plain(head.name || head.run || "Fedhub")}</bdi>
        </h1>
        <p class="quiet">
          {plain([head.run, head.algorithm].filter(Boolean).join(" · "))}
          {head.parameters > 0 && ` · ${head.parameters.toLocaleString("en")} parameters (${size(head.model_bytes)})`}
        </p>
        <p class="states">
          <span class="phase" data-phase={head.phase} data-testid="phase">
            {doing(head, round)}
          </span>
          <span class="connection" data-testid="connection" role="status" title={plain(page.reason)}>
            {CONNECTIONS[page.connection]}
          </span>
        </p>
      </div>
      {(head.phase === "ended" || page.connection === "ended") && (
        <p class="over" data-testid="over">
          The run is over{(head.note || page.reason) && `: ${plain(head.note || page.reason)}`}. This is its last board; the
          page looks now and then whether the hub is back.
        </p>
      )}
      <dl class="tiles">
        <Tile name="Round" id="round" value={`${number}`} of={head.rounds ? `/ ${head.rounds}` : ""}>
          <progress value={head.committed} max={head.rounds || 1} aria-label="rounds that count" />
        </Tile>
        <Tile name={plain(metric)} id="metric" value={measured(metric, last?.metrics[metric])}>
          {best ? `best ${measured(metric, best.metrics[metric])} in round ${best.number}` : "not measured"}
        </Tile>
        <Tile name="Answered" id="answered" value={sum ? `${sum.answered}` : "–"} of={sum ? `/ ${sum.asked}` : ""}>
          {round && open ? `${round.goal} wanted, ${round.quorum} needed` : round ? "last round" : "nobody is asked yet"}
        </Tile>
        <Tile name="Deadline in" id="deadline" value={<Countdown round={round} />}>
          {head.deadline > 0 ? `of ${seconds(round?.seconds ?? head.deadline)}` : "none"}
        </Tile>
        <Tile name="Edges here" id="edges" value={`${head.here}`} of={`/ ${Object.keys(edges).length}`}>
          {head.needed > head.here ? `${head.needed} needed` : "seen in all"}
        </Tile>
        <Tile
          name="Crossed"
          id="crossed"
          value={
            <>
              <span data-testid="down">↓ {size(head.down + (open ? sum!.down : 0))}</span>{" "}
              <span data-testid="up">↑ {size(head.up + (open ? sum!.up : 0))}</span>
            </>
          }
        >
          down and up
        </Tile>
      </dl>
      <Announcer row={last} metric={metric} />
    </header>
  );
}

interface TileProps {
  name: string;
  id: string;
  value: ComponentChildren;
  of?: string;
  children: ComponentChildren;
}

function Tile({ name, id, value, of, children }: TileProps) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>
        <span class="value" data-testid={id}>
          {value}
          {of && <small> {of}</small>}
        </span>
        <span class="note">{children}</span>
      </dd>
    </div>
  );
}

/** The time that is left of an open round. */
function Countdown({ round }: { round: Round | null }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && tick((times) => times + 1), 100);
    return () => clearInterval(timer);
  }, []);
  if (!round || !running(round)) return <>–</>;
  const left = round.seconds - elapsed(round);
  return <>{left <= 0 ? "passed" : left < 100 ? `${left.toFixed(1)} s` : seconds(left)}</>;
}

/** Tells a screen reader what came of a round; of fast rounds only every so often. */
function Announcer({ row, metric }: { row: Row | undefined; metric: string }) {
  const told = useRef({ at: 0, text: "" });
  if (row && Date.now() - told.current.at > 10_000) {
    const value = row.metrics[metric];
    const text =
      `Round ${row.number}: ${row.answered} of ${row.asked} answered` +
      (value === undefined ? "" : `, ${plain(metric)} ${measured(metric, value)}`);
    if (text !== told.current.text) told.current = { at: Date.now(), text };
  }
  return (
    <p class="unseen" aria-live="polite">
      {told.current.text}
    </p>
  );
}
