// The run in a few numbers, and its model to take away.

import { Part } from "./board";
import { link, page, useBoard } from "./page";
import { bestRow } from "./top";
import { count, measured, percent, plain, seconds, size } from "./words";

export function Summary() {
  const ref = useBoard<HTMLElement>(Part.head | Part.rows | Part.edges | Part.link);
  const { head, rows, edges, time } = page.board!;
  const { metric } = head;
  const last = rows.at(-1);
  const best = bestRow(rows);
  let data = 0;
  for (const name in edges) if (edges[name]!.role === "trainer") data += edges[name]!.data_bytes;
  const asked = Object.values(head.fates).reduce((sum, times) => sum + times, 0);
  const facts: [string, string][] = [
    ["Rounds that count", `${count(head.committed)} of ${count(head.rounds)}${head.abandoned ? `, ${head.abandoned} tries abandoned` : ""}`],
    [`Best ${plain(metric)}`, best ? `${measured(metric, best.metrics[metric])} in round ${best.number}` : "not measured"],
    [`Last ${plain(metric)}`, last ? measured(metric, last.metrics[metric]) : "–"],
    ["Crossed the network", `${size(head.down)} down, ${size(head.up)} up`],
    ["Data that never left", size(data)],
    ["Time", head.began ? seconds(Math.max(0, time - head.began)) : "–"],
    ["Answers that count", asked ? `${count(head.fates.accepted ?? 0)} of ${count(asked)} (${percent((head.fates.accepted ?? 0) / asked)})` : "–"],
    ["Lost", `${seconds(head.lost_seconds)} of work, ${size(head.lost_bytes)}`],
  ];
  if (head.strangers) facts.push(["Turned away", count(head.strangers)]);
  if (head.missed) facts.push(["Facts that are missing", count(head.missed)]);
  return (
    <section ref={ref} class="summary" aria-labelledby="summary" data-testid="summary">
      <header>
        <h2 id="summary">The run so far</h2>
        <button
          class="primary"
          data-testid="model"
          disabled={page.connection !== "open"}
          onClick={() => link.ask({ type: "fetch" })}
        >
          Download the model
        </button>
      </header>
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
