// Curves over the rounds: the metric, the loss, the time and the bytes of each; a click looks back at that round.

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { Part, type Row } from "./board";
import { look, page, useBoard, useDrawer } from "./page";
import { measured, plain, seconds, size } from "./words";

interface Curve {
  id: string;
  name: (metric: string) => string;
  /** One or two values of a round, each with its colour. */
  values: { of: (row: Row, metric: string) => number | null | undefined; colour: string; word: string; dashed?: boolean }[];
  say: (value: number, metric: string) => string;
}

const loss = (value: number) => `${Number(value.toPrecision(3))}`;

const CURVES: Curve[] = [
  {
    id: "metric",
    name: plain,
    values: [{ of: (row, metric) => row.metrics[metric], colour: "--training", word: "" }],
    say: (value, metric) => measured(metric, value),
  },
  {
    id: "loss",
    name: () => "loss",
    values: [
      { of: (row) => row.loss, colour: "--uploading", word: "train" },
      { of: (row) => row.metrics["loss"], colour: "--training", word: "held out", dashed: true },
    ],
    say: loss,
  },
  {
    id: "seconds",
    name: () => "seconds per round",
    values: [{ of: (row) => row.seconds, colour: "--training", word: "" }],
    say: seconds,
  },
  {
    id: "bytes",
    name: () => "bytes per round",
    values: [
      { of: (row) => row.down, colour: "--downloading", word: "↓" },
      { of: (row) => row.up, colour: "--uploading", word: "↑", dashed: true },
    ],
    say: size,
  },
];

export function Curves() {
  return (
    <section class="curves" aria-labelledby="curves">
      <header>
        <h2 id="curves">Curves</h2>
        <p class="quiet">click on a round to look back at it</p>
      </header>
      <div class="charts">
        {CURVES.map((curve) => (
          <Chart key={curve.id} curve={curve} />
        ))}
      </div>
      <Table />
    </section>
  );
}

function Chart({ curve }: { curve: Curve }) {
  const plot = useRef<uPlot | null>(null);
  const words = useRef<HTMLElement>(null);
  const box = useRef<HTMLDivElement>(null);

  /** What is under the cursor, or the newest. */
  const say = (at: number | null | undefined) => {
    const { rows, head } = page.board!;
    const row = rows[at ?? rows.length - 1];
    const parts = curve.values.flatMap(({ of, word }) => {
      const value = row && of(row, head.metric);
      return value == null ? [] : [`${word} ${curve.say(value, head.metric)}`.trim()];
    });
    words.current!.textContent = row && at != null ? `round ${row.number}: ${parts.join(" · ")}` : parts.join(" · ");
  };

  const draw = () => {
    const { rows, head } = page.board!;
    plot.current?.setData([
      rows.map((row) => row.number),
      ...curve.values.map(({ of }) => rows.map((row) => of(row, head.metric) ?? null)),
      rows.map((row) => (curve.id === "metric" && row.number === head.best ? (row.metrics[head.metric] ?? null) : null)),
    ]);
    say(plot.current?.cursor.idx);
    box.current!.setAttribute("aria-label", summary(curve, rows, head.metric));
  };

  const ref = useDrawer<HTMLElement>(Part.rows, draw);

  useEffect(() => {
    const made = new uPlot(options(curve, box.current!, say), [[]], box.current!);
    plot.current = made;
    made.over.addEventListener("click", () => {
      const row = page.board!.rows[made.cursor.idx ?? -1];
      if (row) look(row.number);
    });
    const resized = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      made.setSize({ width, height });
    });
    resized.observe(box.current!);
    const repaint = () => made.redraw(false);
    dark.addEventListener("change", repaint);
    draw();
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", repaint);
      made.destroy();
    };
  }, []);

  return (
    <figure ref={ref} data-testid={`chart-${curve.id}`}>
      <figcaption>
        {curve.name(page.board!.head.metric)} <b ref={words} />
      </figcaption>
      <div ref={box} class="chart" role="img" />
    </figure>
  );
}

const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}

function options(curve: Curve, box: HTMLElement, say: (at: number | null | undefined) => void): uPlot.Options {
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
  const font = "11px system-ui, sans-serif";
  return {
    width: box.clientWidth,
    height: box.clientHeight,
    padding: [6, 6, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "rounds" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: false },
      y: curve.id === "metric" ? {} : { range: (_, __, most) => [0, 1.06 * most || 1] },
    },
    axes: [
      { ...axis, font, size: 20, gap: 2, space: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
      {
        ...axis,
        font,
        size: 48,
        gap: 4,
        space: 24,
        values: (_, values) => values.map((value) => curve.say(value, page.board!.head.metric).replace(/\.0+(?=\D|$)/, "")),
      },
    ],
    series: [
      {},
      ...curve.values.map(({ colour: name, dashed }) => ({
        stroke: () => colour(name),
        width: 1.5,
        ...(dashed ? { dash: [4, 3] } : {}),
        points: { show: (self: uPlot) => self.data[0].length < 30, size: 4 },
      })),
      { stroke: () => colour("--best"), paths: () => null, points: { show: true, size: 9, width: 2 } },
    ],
    hooks: { setCursor: [(self) => say(self.cursor.idx)] },
  };
}

/** A chart in words. */
function summary(curve: Curve, rows: Row[], metric: string): string {
  if (!rows.length) return `${curve.name(metric)}: no round counts yet`;
  const parts = curve.values.flatMap(({ of, word }) => {
    const values = rows.map((row) => of(row, metric)).filter((value) => value != null);
    if (!values.length) return [];
    const told = [values[0]!, values.at(-1)!, Math.min(...values), Math.max(...values)];
    const [first, last, least, most] = told.map((value) => curve.say(value, metric));
    return [`${word} from ${first} to ${last}, between ${least} and ${most}`.trim()];
  });
  return `${curve.name(metric)} over rounds ${rows[0]!.number} to ${rows.at(-1)!.number}: ${parts.join("; ") || "not measured"}`;
}

const SHOWN = 100;

/** The same in numbers. */
function Table() {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>as a table</summary>
      {open && <Rows />}
    </details>
  );
}

function Rows() {
  const ref = useBoard<HTMLDivElement>(Part.rows);
  const { rows, head } = page.board!;
  return (
    <div ref={ref} class="scroll" tabIndex={0}>
      <table>
        <caption class="unseen">The newest {SHOWN} rounds that count</caption>
        <thead>
          <tr>
            {["round", plain(head.metric), "loss", "answered", "late", "left", "refused", "time", "down", "up"].map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows
            .slice(-SHOWN)
            .reverse()
            .map((row) => (
              <tr key={row.number}>
                <th scope="row">
                  <button class="plain" onClick={() => look(row.number)}>
                    {row.number}
                  </button>
                </th>
                <td>
                  {measured(head.metric, row.metrics[head.metric])}
                  {row.best && " ★"}
                </td>
                <td>{row.loss === null ? "–" : loss(row.loss)}</td>
                <td>
                  {row.answered} / {row.asked}
                </td>
                <td>{row.late}</td>
                <td>{row.left}</td>
                <td>{row.refused}</td>
                <td>{seconds(row.seconds)}</td>
                <td>{size(row.down)}</td>
                <td>{size(row.up)}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
