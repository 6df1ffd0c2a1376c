// Starts the page: reads the key behind the `#`, connects, and draws what comes.
//
// What tests can hold on to (data-testid unless said otherwise):
//   html[data-ready]         there as soon as a board is drawn; window.fedhub.state is that board
//   page                     data-connection = connecting | open | away | refused | ended; data-may = watch | command
//   run, phase, connection, round, metric, edges, answered, deadline, down, up      the header
//   over                     what is said of a run that has ended
//   key, key-enter           the screen that asks for a key
//   pause, resume, next, deadline-value, deadline-set, stop, drop (data-edge), confirm, cancel      orders
//   toast (data-done)        what became of an order
//   lanes                    data-round, data-mode = lanes | dots; its li: data-edge, data-stage, data-fate, data-why
//   lane-detail, mode-lanes, mode-dots, scrubber, earlier, later, live              this round
//   chart-metric, chart-loss, chart-seconds, chart-bytes                            curves
//   answers, time            the sentences under "How long answers take" and "Where the time goes"
//   edges-filter, edges-count, edge (a row of the table, data-edge)                 edges
//   log-filter, log-level, line (data-level)                                        log
//   summary, model (the button)                                                     the run so far

import { render } from "preact";
import { link, page } from "./page";
import { Root, keyOf } from "./root";
import "./style.css";

declare global {
  interface Window {
    fedhub: { readonly state: typeof page.board };
  }
}

window.fedhub = {
  get state() {
    return page.board;
  },
};

render(<Root />, document.body);
addEventListener("hashchange", () => link.enter(keyOf(location.hash)));
link.enter(keyOf(location.hash));
