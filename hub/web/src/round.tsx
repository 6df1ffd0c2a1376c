// "This round": who is doing what, as lanes on the round's clock or as dots, and the slider that goes back in time.

import { useEffect, useRef, useState } from "preact/hooks";
import { FATES, Part, STAGES, tally, type Fate, type Round, type Stage } from "./board";
import { Lanes, story } from "./lanes";
import { elapsed, look, page, running, shownRound, touch, useBoard } from "./page";
import { outcome, seconds, SIGN, span, step } from "./words";

const MANY = 60; // edges; more are shown as dots unless lanes are asked for
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function ThisRound() {
  const ref = useBoard<HTMLElement>(Part.round | Part.lanes | Part.view | Part.rows);
  const [wanted, setWanted] = useState<"lanes" | "dots" | null>(null);
  const { rows, round: newest } = page.board!;
  const asked = shownRound();
  const kept = useRef(asked);
  kept.current = page.viewing === null ? asked : (asked ?? kept.current); // until the one that is asked for has come
  const round = kept.current;
  const mode = wanted ?? (round && Object.keys(round.lanes).length > MANY ? "dots" : "lanes");
  return (
    <section ref={ref} class="round" data-back={page.viewing !== null} aria-busy={!asked} aria-labelledby="round">
      <header>
        <h2 id="round">
          {page.viewing === null ? "This round" : "Looking back"}
          {round && <small> {`${round.number}${round.attempt > 1 ? `, try ${round.attempt}` : ""}`}</small>}
        </h2>
        <p class="quiet">{round?.outcome ? outcome(round.outcome) : ""}</p>
        <div class="switch" role="group" aria-label="Draw edges as">
          {(["lanes", "dots"] as const).map((name) => (
            <button key={name} data-testid={`mode-${name}`} aria-pressed={mode === name} onClick={() => setWanted(name)}>
              {name}
            </button>
          ))}
        </div>
      </header>
      {round ? (
        <Picture round={round} mode={mode} />
      ) : (
        <p class="empty">No round has begun. The first begins when enough edges are here.</p>
      )}
      {newest && <Scrubber first={rows[0]?.number ?? newest.number} last={newest.number} />}
    </section>
  );
}

function Picture({ round, mode }: { round: Round; mode: "lanes" | "dots" }) {
  const list = useRef<HTMLUListElement>(null);
  const veil = useRef<HTMLDivElement>(null);
  const lanes = useRef<Lanes | null>(null);
  const [about, setAbout] = useState("");
  const axis = useAxis(round);
  useEffect(() => {
    lanes.current ??= new Lanes(list.current!);
    lanes.current.show(round, axis, mode === "lanes");
  });
  useVeil(veil, round, axis);

  const { standings } = tally(round);
  const every = step(axis, 6);
  const ticks = Array.from({ length: Math.floor(axis / every) + 1 }, (_, at) => at * every);
  const beyond = round.seconds > axis;
  const tell = (event: Event) => {
    const row = (event.target as Element).closest<HTMLElement>("[data-edge]");
    if (row) setAbout(row.dataset.edge!);
  };

  return (
    <>
      <ul class="legend" aria-label="Edges in each state">
        {(round.outcome ? FATES : STAGES).map((is: Stage | Fate) => (
          <li key={is} class={`is-${is}`} data-none={!standings[is]}>
            <i aria-hidden="true">{SIGN[is]}</i> {is} <b>{standings[is] ?? 0}</b>
          </li>
        ))}
      </ul>
      <div class="picture" data-mode={mode}>
        <div class="scroll" tabIndex={-1}>
          <div class="sheet">
            {mode === "lanes" && (
              <div class="axis" aria-hidden="true">
                {ticks.map((second) => (
                  <span key={second} ref={at(second / axis)}>
                    {Number(second.toPrecision(3))} s
                  </span>
                ))}
              </div>
            )}
            <ul
              ref={list}
              class="lanes"
              data-testid="lanes"
              data-round={round.number}
              data-mode={mode}
              aria-label={`Edges of round ${round.number}`}
              onPointerOver={tell}
              onFocusIn={tell}
              onKeyDown={walk}
            />
            {mode === "lanes" && (
              <div class="over-lanes" aria-hidden="true">
                <div ref={veil} class="veil" />
                {ticks.map((second) => (
                  <i key={second} class="grid" ref={at(second / axis)} />
                ))}
                {!beyond && <i class="deadline" ref={at(round.seconds / axis)} />}
              </div>
            )}
          </div>
        </div>
      </div>
      <p class="detail">
        <span data-testid="lane-detail">{round.lanes[about] ? story(about, round) : "Point at an edge, or use the arrow keys."}</span>
        <span class="deadline-word">
          deadline {seconds(round.seconds)}
          {beyond && mode === "lanes" && <span aria-hidden="true"> →</span>}
        </span>
      </p>
    </>
  );
}

/** Put an element at a share of its container's width. */
function at(share: number) {
  return (element: HTMLElement | null) => {
    if (element) element.style.left = `${100 * share}%`;
  };
}

/** Seconds across the picture: what rounds have needed lately, or the deadline; an open round that needs more gets more. */
function useAxis(round: Round): number {
  const kept = useRef({ of: "", needed: 0 });
  const of = `${round.number}/${round.attempt}`;
  const needs = Math.max(0.001, elapsed(round));
  if (kept.current.of !== of) {
    const lately = page.board!.rows.slice(-5).map((row) => row.phases.listening ?? row.seconds);
    const guess = lately.length ? Math.max(...lately) : round.seconds;
    kept.current = { of, needed: round.outcome ? needs : Math.max(needs, guess) };
  } else if (needs > kept.current.needed) {
    kept.current.needed = Math.max(needs, 1.3 * kept.current.needed); // by leaps: each draws everything anew
  }
  return span(kept.current.needed, round.seconds);
}

/** Cover what has not happened yet, and draw the cover back as time goes by, without this page's doing. */
function useVeil(ref: { current: HTMLElement | null }, round: Round, axis: number): void {
  useEffect(() => {
    const veil = ref.current;
    if (!veil) return;
    const second = elapsed(round);
    const [animation] = veil.getAnimations();
    if (!running(round)) {
      animation?.cancel();
      veil.style.transform = `translateX(${Math.min(100, (100 * second) / axis)}%)`;
      return;
    }
    const duration = 1000 * axis;
    const drawn = Number(animation?.currentTime) / 1000;
    if (animation?.effect?.getTiming().duration === duration && Math.abs(drawn - second) < 0.15) return;
    animation?.cancel();
    const easing = calm.matches ? `steps(${Math.ceil(axis)})` : "linear";
    const way = [{ transform: "none" }, { transform: "translateX(100%)" }];
    const drawing = veil.animate(way, { duration, easing, fill: "forwards" });
    drawing.currentTime = 1000 * second;
    drawing.onfinish = () => touch(Part.view); // more room is needed, though nothing may have happened
  });
}

/** Arrow keys go from edge to edge; only one of them is in the tab order. */
function walk(event: KeyboardEvent & { currentTarget: HTMLUListElement }): void {
  const rows = event.currentTarget.children;
  const now = [...rows].indexOf(document.activeElement as Element);
  const first = rows[0] as HTMLElement;
  const across = [...rows].findIndex((row) => (row as HTMLElement).offsetTop > first.offsetTop);
  const line = across < 0 ? rows.length : across;
  const to = {
    ArrowLeft: now - 1,
    ArrowRight: now + 1,
    ArrowUp: now - line,
    ArrowDown: now + line,
    Home: 0,
    End: rows.length - 1,
  }[event.key];
  const next = to === undefined ? null : (rows[to] as HTMLElement | undefined);
  if (!next) return;
  event.preventDefault();
  (rows[now] as HTMLElement).tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function Scrubber({ first, last }: { first: number; last: number }) {
  const shown = page.viewing ?? last;
  return (
    <div class="scrubber" role="group" aria-label="Look back">
      <button data-testid="earlier" aria-label="The round before" disabled={shown <= first} onClick={() => look(shown - 1)}>
        ‹
      </button>
      <input
        type="range"
        data-testid="scrubber"
        aria-label="Round"
        aria-valuetext={`round ${shown}`}
        min={first}
        max={last}
        value={shown}
        disabled={first === last}
        onInput={(event) => look(Number(event.currentTarget.value))}
      />
      <button data-testid="later" aria-label="The round after" disabled={shown >= last} onClick={() => look(shown + 1)}>
        ›
      </button>
      <button data-testid="live" aria-pressed={page.viewing === null} onClick={() => look(null)}>
        live
      </button>
    </div>
  );
}
