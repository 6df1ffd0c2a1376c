// The board as it comes over the wire: the structures of `hub/views/board.py`, and how changes are taken in.

export const STAGES = ["waiting", "downloading", "training", "uploading", "done", "refused", "away"] as const;
export type Stage = (typeof STAGES)[number];

export const FATES = ["accepted", "late", "refused", "left", "spared", "void"] as const;
export type Fate = (typeof FATES)[number];

export type Phase = "opening" | "waiting" | "paused" | "training" | "measuring" | "stopping" | "ended";
export type Level = "info" | "good" | "warn" | "bad";
/** What came of an edge in one round, and the seconds until it was known. */
export type Bar = [Fate, number];

/** One edge's way through one round: each stage, with the second at which it began. Left out is what is 0 or empty. */
export interface Lane {
  stages: [Stage, number][];
  fate?: Fate | null;
  why?: string;
  down?: number;
  up?: number;
  weight?: number;
  loss?: number | null;
}

export interface Round {
  number: number;
  attempt: number;
  began: number;
  seconds: number;
  goal: number;
  quorum: number;
  lanes: Record<string, Lane>;
  /** Seconds until nobody was listened to any more. */
  listened?: number | null;
  /** Empty while the round is open. */
  outcome?: string;
}

/** A round that counts, in numbers. */
export interface Row {
  number: number;
  outcome: string;
  asked: number;
  answered: number;
  late: number;
  left: number;
  refused: number;
  loss: number | null;
  metrics: Record<string, number>;
  best: boolean;
  seconds: number;
  down: number;
  up: number;
  phases: Record<string, number>;
  spent: Partial<Record<Stage, number>>;
  lost_seconds: number;
  lost_bytes: number;
}

export interface Edge {
  role: string;
  kind: string;
  agent: string;
  examples: number;
  data_bytes: number;
  here: boolean;
  since: number;
  reason?: string;
  weight?: number;
  down?: number;
  up?: number;
  fates?: Partial<Record<Fate, number>>;
}

export interface Line {
  time: number;
  level: Level;
  text: string;
  round?: number;
  edge?: string;
}

export interface Head {
  run: string;
  name: string;
  algorithm: string;
  parameters: number;
  model_bytes: number;
  metric: string;
  rounds: number;
  deadline: number;
  began: number;
  committed: number;
  /** The round with the best metric; 0 if nobody measured. */
  best: number;
  phase: Phase;
  note: string;
  paused: boolean;
  here: number;
  needed: number;
  down: number;
  up: number;
  fates: Partial<Record<Fate, number>>;
  abandoned: number;
  strangers: number;
  spent: Partial<Record<Stage, number>>;
  lost_seconds: number;
  lost_bytes: number;
  missed: number;
}

export interface State {
  /** Of the newest fact, in seconds since 1970 by the hub's clock. */
  time: number;
  head: Head;
  edges: Record<string, Edge>;
  bars: Record<string, Bar[]>;
  round: Round | null;
  rows: Row[];
  lines: Line[];
}

export interface Changes {
  time: number;
  head?: Partial<Head> | null;
  round?: Round | null;
  lanes?: Record<string, Lane>;
  edges?: Record<string, Edge>;
  gone?: string[];
  bars?: Record<string, Bar[]>;
  thinned?: boolean;
  rows?: Row[];
  lines?: Line[];
}

/** The parts of the board that can be new, each with a bit of its own. */
export const Part = { head: 1, round: 2, lanes: 4, edges: 8, bars: 16, rows: 32, lines: 64, link: 128, view: 256 };
export const EVERYTHING = 511;

const BARS = 20;
const LINES = 300;

const HEAD: Head = {
  run: "", name: "", algorithm: "", parameters: 0, model_bytes: 0, metric: "accuracy", rounds: 0, deadline: 0,
  began: 0, committed: 0, best: 0, phase: "opening", note: "", paused: false, here: 0, needed: 0, down: 0, up: 0,
  fates: {}, abandoned: 0, strangers: 0, spent: {}, lost_seconds: 0, lost_bytes: 0, missed: 0,
};

/** An edge may be called `constructor`: what is looked up by name must not inherit anything. */
function own<T>(entries: Record<string, T> | undefined): Record<string, T> {
  return Object.assign(Object.create(null) as Record<string, T>, entries);
}

function head(sent: Partial<Head>): Head {
  return { ...HEAD, ...sent };
}

export function round(sent: Round): Round {
  return { ...sent, lanes: own(sent.lanes) };
}

export function state(sent: Partial<State> & { head?: Partial<Head> }): State {
  return {
    time: sent.time ?? 0,
    head: head(sent.head ?? {}),
    edges: own(sent.edges),
    bars: own(sent.bars),
    round: sent.round ? round(sent.round) : null,
    rows: sent.rows ?? [],
    lines: sent.lines ?? [],
  };
}

/** Have `board` become the state that `changes` lead to, as `State.apply` does; give the parts that are new. */
export function apply(board: State, changes: Changes): number {
  const { lanes, edges, gone = [], bars, rows = [], lines = [] } = changes;
  let parts = 0;
  board.time = changes.time;
  if (changes.head) {
    board.head = head(changes.head);
    parts |= Part.head;
  }
  if (changes.round) {
    board.round = round(changes.round);
    parts |= Part.round;
  }
  if (board.round && lanes) {
    Object.assign(board.round.lanes, lanes);
    parts |= Part.lanes;
  }
  for (const edge of gone) {
    delete board.edges[edge];
    delete board.bars[edge];
    parts |= Part.edges | Part.bars;
  }
  if (edges) {
    Object.assign(board.edges, edges);
    for (const edge in edges) board.bars[edge] ??= [];
    parts |= Part.edges;
  }
  if (bars) {
    for (const edge in bars) board.bars[edge] = [...(board.bars[edge] ?? []), ...bars[edge]!].slice(-BARS);
    parts |= Part.bars;
  }
  if (changes.thinned) {
    const half = Math.floor(board.rows.length / 2);
    board.rows = board.rows.filter((row, at) => at >= half || at % 2 === 0 || row.best);
    parts |= Part.rows;
  }
  if (rows.length) {
    board.rows = [...board.rows, ...rows];
    parts |= Part.rows;
  }
  if (lines.length) {
    board.lines = [...board.lines, ...lines].slice(-LINES);
    parts |= Part.lines;
  }
  return parts;
}

/** Where an edge is in a round, or once that is known, what came of it. */
export function standing(lane: Lane): Stage | Fate {
  return lane.fate ?? lane.stages.at(-1)![0];
}

/** Add up what the edges of a round are doing and have done. */
export function tally(round: Round) {
  const standings: Partial<Record<Stage | Fate, number>> = {};
  let asked = 0;
  let answered = 0;
  let down = 0;
  let up = 0;
  for (const name in round.lanes) {
    const lane = round.lanes[name]!;
    const is = standing(lane);
    standings[is] = (standings[is] ?? 0) + 1;
    asked += 1;
    if (lane.stages.at(-1)![0] === "done") answered += 1;
    down += lane.down ?? 0;
    up += lane.up ?? 0;
  }
  return { standings, asked, answered, down, up };
}
