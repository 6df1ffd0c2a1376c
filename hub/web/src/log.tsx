// The log: the newest lines, filtered by words and level; it follows its end unless one has scrolled up.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Component } from "preact";
import { Part, type Level, type Line } from "./board";
import { page, useBoard } from "./page";
import { plain, time } from "./words";

const LEVELS: Record<string, Level[]> = {
  all: ["info", "good", "warn", "bad"],
  "good and worse": ["good", "warn", "bad"],
  "warnings": ["warn", "bad"],
  "failures": ["bad"],
};

const SIGNS: Record<Level, string> = { info: "", good: "★", warn: "!", bad: "✕" };

const keys = new WeakMap<Line, number>();
let lines = 0;

function key(line: Line): number {
  if (!keys.has(line)) keys.set(line, ++lines);
  return keys.get(line)!;
}

/** A line never changes, so it is drawn once. (A VNode that is kept would keep all that was drawn beside it.) */
class Drawn extends Component<{ line: Line }> {
  override shouldComponentUpdate({ line }: { line: Line }) {
    return line !== this.props.line;
  }

  render({ line }: { line: Line }) {
    return (
      <li data-testid="line" data-level={line.level}>
        <time>{time(line.time)}</time>
        <i title={line.level}>{SIGNS[line.level]}</i>
        <bdi>{plain(line.text)}</bdi>
      </li>
    );
  }
}

export function Log() {
  const ref = useBoard<HTMLElement>(Part.lines);
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [filter, setFilter] = useState("");
  const [level, setLevel] = useState("all");
  const words = filter.toLowerCase();
  const levels = LEVELS[level]!;
  const shown = page.board!.lines.filter((line) => levels.includes(line.level) && line.text.toLowerCase().includes(words));

  useLayoutEffect(() => {
    if (follows.current) box.current!.scrollTop = box.current!.scrollHeight;
  });

  return (
    <section ref={ref} class="log" aria-labelledby="log">
      <header>
        <h2 id="log">Log</h2>
        <select
          data-testid="log-level"
          aria-label="Which lines"
          value={level}
          onChange={(event) => setLevel(event.currentTarget.value)}
        >
          {Object.keys(LEVELS).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <input
          type="search"
          data-testid="log-filter"
          placeholder="filter"
          aria-label="Filter the log"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
      </header>
      <div
        ref={box}
        class="scroll"
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-labelledby="log"
        onScroll={({ currentTarget: { scrollTop, clientHeight, scrollHeight } }) => {
          follows.current = scrollTop + clientHeight > scrollHeight - 24;
        }}
      >
        <ol>
          {shown.map((line) => (
            <Drawn key={key(line)} line={line} />
          ))}
        </ol>
        {!shown.length && <p class="empty">No line matches.</p>}
      </div>
    </section>
  );
}
