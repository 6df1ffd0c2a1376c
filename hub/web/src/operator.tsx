// The operator's bar, and the question before an order that cannot be taken back.

import { useEffect, useRef, useState } from "preact/hooks";
import { Part } from "./board";
import { order, page, useBoard } from "./page";
import { plain, seconds } from "./words";

export function Operator() {
  const ref = useBoard<HTMLElement>(Part.head | Part.round | Part.link);
  const [stopping, setStopping] = useState(false);
  const [wanted, setWanted] = useState("");
  const { head, round } = page.board!;
  const off = page.connection !== "open" || head.phase === "ended";
  const set = (event: Event) => {
    event.preventDefault();
    if (Number(wanted) > 0) order({ action: "deadline", seconds: Number(wanted) });
    setWanted("");
  };
  return (
    <section ref={ref} class="operator" aria-label="Orders">
      {head.paused ? (
        <button data-testid="resume" disabled={off} onClick={() => order({ action: "resume" })}>
          ▸ Resume
        </button>
      ) : (
        <button data-testid="pause" disabled={off} onClick={() => order({ action: "pause" })}>
          ‖ Pause
        </button>
      )}
      <button
        data-testid="next"
        disabled={off || !round || !!round.outcome || round.listened != null}
        title="Close the open round with the answers that are in"
        onClick={() => order({ action: "next" })}
      >
        ⇥ Next round now
      </button>
      <form onSubmit={set}>
        <label for="deadline">Deadline</label>
        <input
          id="deadline"
          data-testid="deadline-value"
          type="number"
          min="0.1"
          step="any"
          inputMode="decimal"
          placeholder={seconds(head.deadline)}
          value={wanted}
          onInput={(event) => setWanted(event.currentTarget.value)}
        />
        <button data-testid="deadline-set" disabled={off || !(Number(wanted) > 0)}>
          Set
        </button>
      </form>
      <button class="danger" data-testid="stop" disabled={off} onClick={() => setStopping(true)}>
        ■ Stop
      </button>
      {stopping && (
        <Confirm
          question="Stop the hub?"
          what="It closes the open round, saves the model and ends. The run can be resumed later from the terminal."
          yes="Stop the hub"
          onYes={() => order({ action: "stop" })}
          onClose={() => setStopping(false)}
        />
      )}
    </section>
  );
}

/** Send an edge away, when the operator is sure. */
export function Drop({ edge, onClose }: { edge: string; onClose: () => void }) {
  return (
    <Confirm
      question={`Send ${plain(edge)} away?`}
      what="Its connection is closed; what it has not sent yet does not count."
      yes="Send it away"
      onYes={() => order({ action: "drop", edge })}
      onClose={onClose}
    />
  );
}

interface ConfirmProps {
  question: string;
  what: string;
  yes: string;
  onYes: () => void;
  onClose: () => void;
}

function Confirm({ question, what, yes, onYes, onClose }: ConfirmProps) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => ref.current!.showModal(), []);
  return (
    <dialog ref={ref} aria-labelledby="question" onClose={onClose}>
      <h2 id="question">{question}</h2>
      <p>{what}</p>
      <p class="choice">
        <button data-testid="cancel" onClick={() => ref.current!.close()}>
          Cancel
        </button>
        <button
          class="danger"
          data-testid="confirm"
          onClick={() => {
            onYes();
            ref.current!.close();
          }}
        >
          {yes}
        </button>
      </p>
    </dialog>
  );
}
