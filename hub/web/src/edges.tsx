// The table of edges: sorted and filtered here, and only the rows in view are in the document.

import { useEffect, useRef, useState } from "preact/hooks";
import { Part, standing, type Bar, type Edge } from "./board";
import { Drop } from "./operator";
import { page, useBoard } from "./page";
import { byName, count, percent, plain, seconds, SIGN, size } from "./words";

const HEIGHT = 30; // px of a row, as in the style
const SPARE = 6; // rows above and below what is seen

interface Known {
  name: string;
  edge: Edge;
  /** What it is doing, for people and for the filter. */
  now: string;
  share: number;
}

interface Column {
  name: string;
  of: (known: Known) => number | string;
}

const COLUMNS: Column[] = [
  { name: "edge", of: ({ name }) => name },
  { name: "now", of: ({ now }) => now },
  { name: "last 20 rounds", of: ({ name }) => mean(page.board!.bars[name] ?? []) },
  { name: "weight", of: ({ share }) => share },
  { name: "accepted", of: ({ edge }) => edge.fates?.accepted ?? 0 },
  { name: "late", of: ({ edge }) => edge.fates?.late ?? 0 },
  { name: "refused", of: ({ edge }) => edge.fates?.refused ?? 0 },
  { name: "left", of: ({ edge }) => edge.fates?.left ?? 0 },
  { name: "down", of: ({ edge }) => edge.down ?? 0 },
  { name: "up", of: ({ edge }) => edge.up ?? 0 },
  { name: "examples", of: ({ edge }) => edge.examples },
  { name: "kind", of: ({ edge }) => edge.kind },
  { name: "role", of: ({ edge }) => edge.role },
];

function mean(bars: Bar[]): number {
  return bars.length ? bars.reduce((sum, [, second]) => sum + second, 0) / bars.length : 0;
}

function doing(name: string, edge: Edge): string {
  const { round } = page.board!;
  if (!edge.here) return "away";
  if (edge.role !== "trainer") return "measures";
  const lane = round && !round.outcome ? round.lanes[name] : undefined;
  return lane ? standing(lane) : "here";
}

export function Edges() {
  const ref = useBoard<HTMLElement>(Part.edges | Part.bars | Part.lanes | Part.round | Part.link);
  const [filter, setFilter] = useState("");
  const [sort, setSort] = useState({ column: "edge", down: false });
  const [dropped, setDropped] = useState("");
  const { edges } = page.board!;

  let weights = 0;
  for (const name in edges) weights += edges[name]!.weight ?? 0;
  const known = byName(Object.keys(edges)).map((name): Known => {
    const edge = edges[name]!;
    return { name, edge, now: doing(name, edge), share: weights ? (edge.weight ?? 0) / weights : 0 };
  });
  const words = filter.toLowerCase();
  const rows = known.filter(({ name, edge, now }) => `${name} ${edge.kind} ${edge.role} ${now}`.toLowerCase().includes(words));
  if (sort.column !== "edge") {
    const { of } = COLUMNS.find(({ name }) => name === sort.column)!;
    const values = new Map(rows.map((row) => [row, of(row)]));
    rows.sort((a, b) => (values.get(a)! < values.get(b)! ? -1 : values.get(a)! > values.get(b)! ? 1 : 0));
  }
  if (sort.down) rows.reverse();

  return (
    <section ref={ref} class="edges" aria-labelledby="edges">
      <header>
        <h2 id="edges">Edges</h2>
        <p class="quiet" data-testid="edges-count">
          {rows.length === known.length ? count(known.length) : `${count(rows.length)} of ${count(known.length)}`}
        </p>
        <input
          type="search"
          data-testid="edges-filter"
          placeholder="filter"
          aria-label="Filter edges by name, kind, role or state"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
      </header>
      <Table rows={rows} sort={sort} onSort={setSort} onDrop={page.may === "command" ? setDropped : null} />
      {dropped && <Drop edge={dropped} onClose={() => setDropped("")} />}
    </section>
  );
}

interface TableProps {
  rows: Known[];
  sort: { column: string; down: boolean };
  onSort: (sort: { column: string; down: boolean }) => void;
  onDrop: ((edge: string) => void) | null;
}

function Table({ rows, sort, onSort, onDrop }: TableProps) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ first: 0, rows: 20 });
  const look = () => {
    const { scrollTop, clientHeight } = box.current!;
    setView({ first: Math.floor(scrollTop / HEIGHT / SPARE) * SPARE, rows: Math.ceil(clientHeight / HEIGHT) });
  };
  useEffect(() => {
    const resized = new ResizeObserver(look);
    resized.observe(box.current!);
    return () => resized.disconnect();
  }, []);
  const first = Math.max(0, Math.min(view.first, rows.length - view.rows) - SPARE);
  const seen = rows.slice(first, first + view.rows + 3 * SPARE);
  const high = (rows: number) => (element: HTMLElement | null) => {
    if (element) element.style.height = `${rows * HEIGHT}px`;
  };
  return (
    <div ref={box} class="scroll" tabIndex={0} onScroll={look}>
      <table aria-rowcount={rows.length + 1}>
        <caption class="unseen">Edges, what they are doing and what has come of them</caption>
        <thead>
          <tr>
            {COLUMNS.map(({ name }) => {
              const sorted = sort.column === name;
              return (
                <th key={name} scope="col" aria-sort={sorted ? (sort.down ? "descending" : "ascending") : "none"}>
                  <button class="plain" onClick={() => onSort({ column: name, down: sorted ? !sort.down : name !== "edge" })}>
                    {name}
                    <span aria-hidden="true">{sorted ? (sort.down ? " ▾" : " ▴") : ""}</span>
                  </button>
                </th>
              );
            })}
            {onDrop && (
              <th scope="col">
                <span class="unseen">orders</span>
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          <tr class="space" ref={high(first)} aria-hidden="true" />
          {seen.map((row, at) => (
            <Row key={row.name} row={row} index={first + at + 2} onDrop={onDrop} />
          ))}
          <tr class="space" ref={high(rows.length - first - seen.length)} aria-hidden="true" />
        </tbody>
      </table>
    </div>
  );
}

function Row({ row: { name, edge, now, share }, index, onDrop }: { row: Known; index: number; onDrop: TableProps["onDrop"] }) {
  const { fates = {} } = edge;
  const reason = !edge.here && edge.reason ? `: ${plain(edge.reason)}` : "";
  return (
    <tr data-testid="edge" data-edge={name} aria-rowindex={index}>
      <th scope="row" title={`${edge.role} · ${plain(edge.agent)}`}>
        <bdi>{plain(name)}</bdi>
      </th>
      <td class={`now is-${now}`} title={now + reason}>
        <i aria-hidden="true">{(SIGN as Record<string, string>)[now] ?? "·"}</i> {now}
        {reason && <bdi>{reason}</bdi>}
      </td>
      <td>
        <Bars bars={page.board!.bars[name] ?? []} />
      </td>
      <td>{percent(share)}</td>
      <td>{fates.accepted ?? 0}</td>
      <td>{fates.late ?? 0}</td>
      <td>{fates.refused ?? 0}</td>
      <td>{fates.left ?? 0}</td>
      <td>{size(edge.down ?? 0)}</td>
      <td>{size(edge.up ?? 0)}</td>
      <td>{count(edge.examples)}</td>
      <td>{plain(edge.kind) || "–"}</td>
      <td>{plain(edge.role)}</td>
      {onDrop && (
        <td>
          <button
            class="small"
            data-testid="drop"
            data-edge={name}
            aria-label={`drop ${plain(name)}`}
            disabled={!edge.here || page.connection !== "open"}
            onClick={() => onDrop(name)}
          >
            drop
          </button>
        </td>
      )}
    </tr>
  );
}

const SLOT = 5; // px of a bar and the room after it
const TALL = 18;

/** An edge's last rounds: a bar as high as its answer took of the deadline; a stump below the line is no answer. */
function Bars({ bars }: { bars: Bar[] }) {
  const deadline = page.board!.head.deadline || Math.max(...bars.map(([, second]) => second), 0.001);
  const paths: Record<string, string> = {};
  bars.forEach(([fate, second], at) => {
    const high = Math.max(1.5, Math.min(1, second / deadline) * TALL);
    paths[fate] = `${paths[fate] ?? ""}M${at * SLOT + 2} ${TALL}V${(TALL - high).toFixed(1)}`;
  });
  const said = bars.map(([fate, second]) => `${fate} ${seconds(second)}`).join(", ");
  return (
    <svg class="bars" width={20 * SLOT} height={TALL} role="img" aria-label={said || "not asked yet"}>
      {Object.entries(paths).map(([fate, path]) => (
        <path key={fate} class={`is-${fate}`} d={path} />
      ))}
    </svg>
  );
}
