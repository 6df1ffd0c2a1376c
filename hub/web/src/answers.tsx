// "How long answers take": the last rounds' answers of all edges by their time, and what that says of the deadline.

import { Part, type Bar } from "./board";
import { page, useBoard } from "./page";
import { count, percent, seconds, span, step } from "./words";

const BINS = 36;

interface Asked {
  total: number;
  /** Seconds of those that came, sorted. */
  times: Float64Array;
  /** Seconds of those among them that were refused. */
  refused: number[];
  late: number;
  left: number;
}

function gather(bars: Record<string, Bar[]>): Asked {
  const times: number[] = [];
  const refused: number[] = [];
  let late = 0;
  let left = 0;
  for (const edge in bars) {
    for (const [fate, second] of bars[edge]!) {
      if (fate === "late") late += 1;
      else if (fate === "left") left += 1;
      else if (fate !== "spared") {
        times.push(second);
        if (fate === "refused") refused.push(second);
      }
    }
  }
  return { total: times.length + late + left, times: Float64Array.from(times).sort(), refused, late, left };
}

/** What the answers say of the deadline: who did not answer counts as not answering. */
function sentence({ total, times, late, left }: Asked, deadline: number): string {
  const within = (share: number) => times[Math.ceil(share * total) - 1];
  const quick = [0.5, 0.95].flatMap((share) => {
    const second = within(share);
    return second === undefined ? [] : [`${percent(share)} answer within ${seconds(second)}`];
  });
  const before = deadline > 0 ? times.filter((second) => second <= deadline).length : times.length;
  const named = deadline > 0 ? `before the deadline of ${seconds(deadline)}` : "";
  const never = late + left ? `; ${percent((late + left) / total)} never do` : "";
  return `${[...quick, `${percent(before / total)} answer ${named}`.trim()].join(", ")}${never}.`;
}

export function Answers() {
  const ref = useBoard<HTMLElement>(Part.bars | Part.head);
  const { bars, head } = page.board!;
  const asked = gather(bars);
  return (
    <section ref={ref} class="answers" aria-labelledby="answers">
      <header>
        <h2 id="answers">How long answers take</h2>
        <p class="quiet">{asked.total ? `${count(asked.total)} questions of the last rounds` : ""}</p>
      </header>
      {asked.total ? (
        <>
          <p data-testid="answers">{sentence(asked, head.deadline)}</p>
          <Histogram asked={asked} deadline={head.deadline} />
        </>
      ) : (
        <p class="empty">No round is over yet.</p>
      )}
    </section>
  );
}

function Histogram({ asked, deadline }: { asked: Asked; deadline: number }) {
  const axis = span(asked.times.at(-1) ?? deadline, deadline);
  const bins = Array.from({ length: BINS }, () => ({ came: 0, refused: 0 }));
  const bin = (second: number) => bins[Math.min(BINS - 1, Math.floor((BINS * second) / axis))]!;
  for (const second of asked.times) bin(second).came += 1;
  for (const second of asked.refused) bin(second).refused += 1;
  const never = asked.late + asked.left;
  const most = Math.max(1, ...bins.map(({ came }) => came), never);
  const tall = (number: number) => (element: HTMLElement | null) => {
    if (element) element.style.height = `${(100 * number) / most}%`;
  };
  const place = (second: number) => (element: HTMLElement | null) => {
    if (element) element.style.left = `${(100 * second) / axis}%`;
  };
  const every = step(axis, 5);
  return (
    <div class="histogram" aria-hidden="true">
      <div class="bins">
        {bins.map(({ came, refused }, at) => (
          <span key={at} title={`${seconds((at * axis) / BINS)} to ${seconds(((at + 1) * axis) / BINS)}: ${came}`}>
            <i class="is-refused" ref={tall(refused)} />
            <i class="is-accepted" ref={tall(came - refused)} />
          </span>
        ))}
        {deadline > 0 && deadline <= axis && <i class="deadline" ref={place(deadline)} />}
      </div>
      <div class="never">
        <span title={`late: ${asked.late}, left: ${asked.left}`}>
          <i class="is-left" ref={tall(asked.left)} />
          <i class="is-late" ref={tall(asked.late)} />
        </span>
      </div>
      <div class="axis">
        {Array.from({ length: Math.floor(axis / every) + 1 }, (_, at) => (
          <span key={at} ref={place(at * every)}>
            {Number((at * every).toPrecision(3))} s
          </span>
        ))}
      </div>
      <div class="axis">
        <span>never</span>
      </div>
    </div>
  );
}
