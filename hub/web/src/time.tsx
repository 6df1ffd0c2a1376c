// "Where the time goes": edge-seconds by stage, the hub's own phases, and what was done for nothing.

import { Part, STAGES, type Head, type Row, type Stage } from "./board";
import { look, page, useBoard } from "./page";
import { percent, seconds, SIGN, size } from "./words";

const SHOWN = 60; // rounds
const WORK: Stage[] = ["downloading", "training", "uploading"];
const PHASES = ["listening", "averaging", "saving", "measuring"];

type Spent = Partial<Record<string, number>>;

function total(spent: Spent): number {
  return Object.values(spent).reduce<number>((sum, value) => sum + (value ?? 0), 0);
}

function work(spent: Spent): number {
  return WORK.reduce((sum, stage) => sum + (spent[stage] ?? 0), 0);
}

export function Time() {
  const ref = useBoard<HTMLElement>(Part.rows);
  const { head, rows } = page.board!;
  const newest = rows.slice(-SHOWN);
  const phases: Spent = {};
  for (const row of newest) for (const name of PHASES) phases[name] = (phases[name] ?? 0) + (row.phases[name] ?? 0);
  return (
    <section ref={ref} class="time" aria-labelledby="time">
      <header>
        <h2 id="time">Where the time goes</h2>
        <p class="quiet">{newest.length ? `edge-seconds of ${newest.length} rounds; below the line: lost` : ""}</p>
      </header>
      {newest.length ? (
        <>
          <p data-testid="time">{waste(head)}</p>
          <Columns rows={newest} />
          <Share title="Edges, in all" spent={head.spent} names={STAGES} />
          <Share title="Hub, these rounds" spent={phases} names={PHASES} />
        </>
      ) : (
        <p class="empty">No round is over yet.</p>
      )}
    </section>
  );
}

function waste(head: Head): string {
  const worked = work(head.spent);
  const moved = head.down + head.up;
  if (!head.lost_seconds && !head.lost_bytes) return "Nothing was lost: all work of the edges counts.";
  const lost = worked ? ` (${percent(head.lost_seconds / worked)} of the edges’ work)` : "";
  const bytes = moved ? ` (${percent(head.lost_bytes / moved)} of what crossed)` : "";
  return `Lost on answers that do not count: ${seconds(head.lost_seconds)}${lost} and ${size(head.lost_bytes)}${bytes}.`;
}

/** A column for each round: upwards its edge-seconds by stage, downwards what of them was for nothing. */
function Columns({ rows }: { rows: Row[] }) {
  const most = Math.max(...rows.map((row) => total(row.spent)), 0.001);
  return (
    <div class="columns" role="img" aria-label={`Edge-seconds by stage in rounds ${rows[0]!.number} to ${rows.at(-1)!.number}`}>
      {rows.map((row) => {
        const all = total(row.spent);
        const paint = (element: HTMLElement | null) => {
          if (!element) return;
          const [up, down] = element.children as unknown as [HTMLElement, HTMLElement];
          up.style.height = `${(100 * all) / most}%`;
          up.style.background = `linear-gradient(0deg, ${stops(row.spent, [...WORK, "waiting", "refused", "away", "done"])})`;
          down.style.height = `${(100 * row.lost_seconds) / most}%`;
        };
        const share = work(row.spent) ? row.lost_seconds / work(row.spent) : 0;
        return (
          <span
            key={row.number}
            ref={paint}
            title={`round ${row.number}: ${seconds(all)}, of which ${seconds(work(row.spent))} work; lost ${seconds(row.lost_seconds)} (${percent(share)}), ${size(row.lost_bytes)}`}
            onClick={() => look(row.number)}
          >
            <i />
            <i class="lost" />
          </span>
        );
      })}
    </div>
  );
}

/** Colours one after the other, each as long as its share. */
function stops(spent: Spent, names: readonly string[]): string {
  const all = total(spent) || 1;
  let at = 0;
  const parts = names.map((name) => {
    const from = at;
    at += (100 * (spent[name] ?? 0)) / all;
    return `var(--${name}) ${from.toFixed(2)}% ${at.toFixed(2)}%`;
  });
  return parts.join(", ");
}

function Share({ title, spent, names }: { title: string; spent: Spent; names: readonly string[] }) {
  const all = total(spent) || 1;
  const paint = (element: HTMLElement | null) => {
    if (element) element.style.background = `linear-gradient(90deg, ${stops(spent, names)})`;
  };
  return (
    <div class="share">
      <h3>{title}</h3>
      <div class="stack" ref={paint} aria-hidden="true" />
      <ul class="legend" aria-label={title}>
        {names
          .filter((name) => spent[name])
          .map((name) => (
            <li key={name} class={`is-${name}`}>
              <i aria-hidden="true">{SIGN[name as Stage] ?? ""}</i> {name} <b>{percent(spent[name]! / all)}</b>{" "}
              <small>{seconds(spent[name]!)}</small>
            </li>
          ))}
      </ul>
    </div>
  );
}
