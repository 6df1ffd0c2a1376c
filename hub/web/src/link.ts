// The wire to the hub (docs/protocol.md, section 12): one websocket that comes back whenever it can.

import { decode, decodeMulti, encode } from "@msgpack/msgpack";
import type { Changes, Round, State } from "./board";

export type Connection = "connecting" | "open" | "away" | "refused" | "ended";
export type May = "watch" | "command";
export type Order =
  | { action: "pause" | "resume" | "next" | "stop" }
  | { action: "deadline"; seconds: number }
  | { action: "drop"; edge: string };
export type Question =
  | ({ type: "order" } & Order)
  | { type: "look"; round: number }
  | { type: "fetch" };
type Answer =
  | { type: "shown"; what: "board" | "changes" | "past" | "model"; may?: May; round?: number; now?: number }
  | { type: "reply"; done: boolean; reason: string }
  | { type: "goodbye"; code: string; reason?: string };

/** Who is told what comes over the wire. */
export interface Listener {
  board(board: State, may: May, now: number): void;
  changes(changes: Changes, now: number): void;
  past(round: Round): void;
  model(file: Uint8Array<ArrayBuffer>, round: number): void;
  /** What became of a question; of none, if another than this page has asked over its socket. */
  reply(done: boolean, reason: string, to: Question | undefined): void;
  connection(is: Connection, reason: string): void;
}

const ASLEEP = 30_000; // ms without a tick or hidden: a socket may have died unnoticed, for no ping is seen here
const PATIENCE = 15_000; // ms for a socket to bring its first message
const PROTO = [0xa9, ...new TextEncoder().encode("__proto__")]; // as msgpack writes it

export class Link {
  #socket: WebSocket | null = null;
  #failures = 0;
  #timer = 0;
  #heard = 0;
  #is: Connection = "connecting";
  #key = "";
  /** What the hub has not answered yet; it answers in order. */
  readonly #asked: Question[] = [];
  readonly #listener: Listener;

  constructor(listener: Listener) {
    this.#listener = listener;
    this.#keepAwake();
  }

  /** Connect, with another key than before. */
  enter(key: string): void {
    this.#key = key;
    this.#failures = 0;
    this.#become("connecting");
    this.#open();
  }

  ask(question: Question): void {
    if (this.#is !== "open") return this.#listener.reply(false, "the hub is away", question);
    this.#asked.push(question);
    this.#socket!.send(encode(question));
  }

  /** Give the oldest question that an answer can be to, which waits no more. */
  #answered(fits: (question: Question) => boolean): Question | undefined {
    const at = this.#asked.findIndex(fits);
    return at < 0 ? undefined : this.#asked.splice(at, 1)[0];
  }

  #become(is: Connection, reason = ""): void {
    this.#is = is;
    this.#listener.connection(is, reason);
  }

  #open(): void {
    this.#drop();
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const random = [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(16).padStart(2, "0"));
      const hello = { type: "hello", versions: [1], edge: `page-${random.join("")}`, role: "viewer" };
      socket.send(encode({ ...hello, agent: "fedhub page", kind: "browser", key: this.#key }));
    };
    socket.onmessage = ({ data }) => {
      clearTimeout(this.#timer);
      this.#heard = Date.now();
      this.#take(new Uint8Array(data as ArrayBuffer));
    };
    socket.onclose = ({ reason }) => this.#lost(reason);
    this.#timer = setTimeout(() => this.#lost("it does not answer"), PATIENCE);
  }

  #drop(): void {
    clearTimeout(this.#timer);
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
    for (const question of this.#asked.splice(0)) {
      if (question.type === "look") continue; // it is asked again with the next board
      this.#listener.reply(false, "the connection was lost before the hub answered", question);
    }
  }

  /** Come back after a random while: a hub that restarts must not be visited by everybody at once. */
  #lost(reason: string): void {
    this.#drop();
    if (this.#is === "refused") return;
    const limit = this.#is === "ended" ? Math.min(60, 10 * 1.5 ** this.#failures) : Math.min(5, 0.5 * 2 ** this.#failures);
    this.#failures += 1;
    if (this.#is !== "ended") this.#become("away", reason);
    this.#timer = setTimeout(() => this.#open(), 1000 * limit * Math.random());
  }

  #take(bytes: Uint8Array<ArrayBuffer>): void {
    const [message, file] = [...decodeMulti(bytes)].filter((part) => part !== null) as [Answer, Uint8Array<ArrayBuffer>];
    switch (message.type) {
      case "shown":
        switch (message.what) {
          case "board":
            this.#failures = 0;
            this.#become("open");
            return this.#listener.board(decode(defused(file)) as State, message.may ?? "watch", message.now ?? 0);
          case "changes":
            return this.#listener.changes(decode(defused(file)) as Changes, message.now ?? 0);
          case "past":
            this.#answered((question) => question.type === "look" && question.round === message.round);
            return this.#listener.past(decode(defused(file)) as Round);
          case "model":
            this.#answered((question) => question.type === "fetch");
            return this.#listener.model(file, message.round ?? 0);
        }
        return;
      case "reply": {
        // What succeeds without anything to show is an order.
        const to = this.#answered((question) => !message.done || question.type === "order");
        return this.#listener.reply(message.done, message.reason, to);
      }
      case "goodbye":
        if (message.code === "done") this.#become("ended", message.reason);
        else if (message.code !== "restarting") this.#become("refused", message.reason);
    }
  }

  /** Look for the hub at once when this device wakes up or is online again. */
  #keepAwake(): void {
    let ticked = Date.now();
    let hidden = 0;
    const wake = () => {
      if (this.#is !== "refused" && Date.now() - this.#heard > 2000) this.#open();
    };
    setInterval(() => {
      if (Date.now() - ticked > ASLEEP && !document.hidden) wake();
      ticked = Date.now();
    }, 5000);
    addEventListener("online", wake);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) hidden = Date.now();
      else if (this.#is !== "open" || Date.now() - hidden > ASLEEP) wake();
    });
  }
}

/** An edge may call a metric `__proto__`, at which the decoder would give up: rename it where it stands. */
function defused(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  for (let at = bytes.indexOf(PROTO[0]!); at >= 0; at = bytes.indexOf(PROTO[0]!, at + 1)) {
    if (PROTO.every((byte, further) => bytes[at + further] === byte)) bytes[at + 1] = bytes[at + 2] = 0x2d;
  }
  return bytes;
}
