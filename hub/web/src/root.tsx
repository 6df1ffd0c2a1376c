// The page as a whole: its sections in order, the screen that asks for a key, and the short notices.

import { useEffect, useState } from "preact/hooks";
import { Answers } from "./answers";
import { Part } from "./board";
import { Curves } from "./curves";
import { Edges } from "./edges";
import { Log } from "./log";
import { Operator } from "./operator";
import { link, page, useBoard } from "./page";
import { ThisRound } from "./round";
import { Summary } from "./summary";
import { Time } from "./time";
import { Top } from "./top";
import { plain } from "./words";

export function keyOf(hash: string): string {
  return new URLSearchParams(hash.slice(1)).get("k") ?? "";
}

export function Root() {
  const ref = useBoard<HTMLDivElement>(Part.link);
  const { board, connection } = page;
  const refused = connection === "refused";
  return (
    <div ref={ref} class="page" data-testid="page" data-connection={connection} data-may={page.may}>
      {refused ? <Door /> : board ? <Board /> : <Waiting />}
      <Toasts />
    </div>
  );
}

const SECTIONS = [ThisRound, Curves, Answers, Time, Edges, Log, Summary];

/** All of the board; what is seen first comes a frame before the rest. */
function Board() {
  const [there, setThere] = useState(2);
  useEffect(() => {
    if (there < SECTIONS.length) requestAnimationFrame(() => setThere(SECTIONS.length));
    else document.documentElement.dataset.ready = "";
  }, [there]);
  return (
    <>
      <Top />
      {page.may === "command" && <Operator />}
      <main class="sections">
        {SECTIONS.slice(0, there).map((Section, at) => (
          <Section key={at} />
        ))}
      </main>
    </>
  );
}

function Sign() {
  return (
    <h1>
      <img src="./icon.svg" alt="" width={28} height={28} /> Fedhub
    </h1>
  );
}

function Waiting() {
  return (
    <main class="door">
      <Sign />
      <p role="status">{page.connection === "away" ? "The hub is away, trying again …" : "Asking the hub for its board …"}</p>
    </main>
  );
}

function Door() {
  const [key, setKey] = useState(keyOf(location.hash));
  const enter = (event: Event) => {
    event.preventDefault();
    history.replaceState(null, "", `#k=${encodeURIComponent(key.trim())}`);
    link.enter(key.trim());
  };
  return (
    <main class="door">
      <Sign />
      <p role="alert">{plain(page.reason) || "The hub wants to see a key."}</p>
      <form onSubmit={enter}>
        <label for="key">Key</label>
        <input
          id="key"
          data-testid="key"
          value={key}
          maxLength={64}
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          autofocus
          onInput={(event) => setKey(event.currentTarget.value)}
        />
        <button class="primary" data-testid="key-enter">
          Open
        </button>
      </form>
      <p class="quiet">
        The hub’s terminal printed it, at the end of the page’s address, behind “#k=”; keys.json in the hub’s folder of runs
        has it too.
      </p>
    </main>
  );
}

function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {page.toasts.map((toast) => (
        <p key={toast.id} data-testid="toast" data-done={toast.good} class={toast.good ? "good" : "bad"}>
          {toast.text}
        </p>
      ))}
    </div>
  );
}
