// What the agent said, as of the last event: totals, rates and a minute of history for each namespace.

/** Points of history: one for each event, about one a second. */
export const HISTORY = 60;
/** Rates of what goes wrong are smoothed over about that long, in seconds. */
const SMOOTH = 3;
/** What did not happen for that long is over, in seconds. */
const OVER = 5;
/** The same of what the agent looks at only now and then; of its rate nothing is known. */
const SELDOM = 20;
/** What happens on networks that are well, too: worth a look, not an alarm. */
const MINOR = new Set([
  "tcp:retransmit_fast",
  "tcp:retransmit_probe",
  "tcp:reset_received",
  "tcp:reset_sent",
  "device:drops",
  "device:errors",
  "down",
]);
/** Without an event for that long the agent is called gone, in milliseconds. */
const PATIENCE = 6000;
const AGAIN = 1000;

/** One namespace. */
class Namespace {
  constructor(row) {
    this.row = row;
    this.time = null;
    // Per second, as of the last event; null until two readings are known.
    this.rate = null;
    // What goes wrong now: how often per second, and when it last did.
    this.present = new Map();
    this.happened = new Map();
    this.history = { receive: [], transmit: [], losses: [], tcp: [] };
    this.interfaces = new Map();
  }

  /** Takes up a later reading. */
  take(row, time) {
    const seconds = this.time === null ? 0 : time - this.time;
    if (seconds > 0) {
      const before = this.row;
      this.rate = {
        receive: traffic(before.receive, row.receive, seconds),
        transmit: traffic(before.transmit, row.transmit, seconds),
        losses: rose(before.losses, row.losses, seconds),
        tcp: rose(trouble(before.tcp), trouble(row.tcp), seconds),
      };
      this.note(before, row, seconds, time);
    }
    this.row = row;
    this.time = time;
    const { rate, history } = this;
    push(history.receive, rate?.receive ?? null);
    push(history.transmit, rate?.transmit ?? null);
    push(history.losses, rate?.losses ?? null);
    push(history.tcp, rate?.tcp ?? null);
  }

  /** Rates of interfaces, and of what goes wrong: smoothed, so that what happened once is seen for a moment. */
  note(before, row, seconds, time) {
    const fade = Math.exp(-seconds / SMOOTH);
    for (const [name, rate] of this.present) {
      if (time - this.happened.get(name) > (isSeldom(name) ? SELDOM : OVER)) this.present.delete(name);
      else this.present.set(name, rate * fade);
    }
    for (const [name, total] of Object.entries(row.symptoms)) {
      const more = total - (before.symptoms[name] ?? 0);
      if (more <= 0) continue;
      this.happened.set(name, time);
      const known = this.present.get(name);
      // What begins is shown as it is.
      this.present.set(name, known === undefined ? more / seconds : known + (more / seconds) * (1 - fade));
    }
    const earlier = new Map(before.interfaces.map((one) => [one.name, one]));
    this.interfaces = new Map(
      row.interfaces.map((one) => [
        one.name,
        {
          receive: traffic(earlier.get(one.name)?.receive ?? null, one.receive, seconds),
          transmit: traffic(earlier.get(one.name)?.transmit ?? null, one.transmit, seconds),
        },
      ]),
    );
  }

  /** Names of interfaces that are down. */
  down() {
    return this.row.interfaces.filter((one) => one.running === false).map((one) => one.name);
  }
}

function isSeldom(name) {
  return name.startsWith("device:");
}

/** Connects that failed and segments sent again. */
function trouble(tcp) {
  return tcp ? tcp.failed + tcp.retransmitted : null;
}

function rose(before, now, seconds) {
  if (before === null || now === null || before === undefined || now === undefined || now < before)
    return null;
  return (now - before) / seconds;
}

function traffic(before, now, seconds) {
  if (!before || !now) return null;
  const packets = rose(before.packets, now.packets, seconds);
  return packets === null ? null : { packets, bytes: rose(before.bytes, now.bytes, seconds) };
}

function push(list, value) {
  list.push(value);
  if (list.length > HISTORY) list.shift();
}

/** Everything, kept up to date by events. */
export class Store {
  /** `changed` is called after each event, `gone` with the reason when there is none. */
  constructor({ changed, gone }) {
    this.namespaces = new Map();
    this.status = null;
    this.symptoms = new Map();
    this.changed = changed;
    this.gone = gone;
    this.source = null;
    this.heard = performance.now();
  }

  /** Begins to listen, and begins anew whenever that ends. */
  async start() {
    // First the words, so that nothing is shown without them.
    while (this.symptoms.size === 0) {
      try {
        const known = await ask("/api/v1/symptoms");
        this.symptoms = new Map(known.map((one) => [one.name, one]));
      } catch {
        this.gone("The agent does not answer.");
        await new Promise((done) => setTimeout(done, AGAIN));
      }
    }
    this.listen();
    setInterval(() => {
      if (performance.now() - this.heard > PATIENCE) this.lose("The agent says nothing any more.");
    }, 500);
  }

  listen() {
    this.heard = performance.now();
    const source = new EventSource("/api/v1/events");
    this.source = source;
    const on = (name, take) => {
      source.addEventListener(name, (event) => {
        if (this.source !== source) return;
        this.heard = performance.now();
        take(JSON.parse(event.data));
      });
    };
    on("all", (all) => this.takeAll(all));
    on("change", (change) => this.takeChange(change));
    on("trouble", (trouble) => this.gone(trouble.error));
    source.addEventListener("error", () => {
      if (this.source === source) this.lose("The agent does not answer.");
    });
  }

  lose(why) {
    this.source?.close();
    this.source = null;
    this.heard = Infinity;
    this.gone(why);
    setTimeout(() => this.listen(), AGAIN);
  }

  takeAll({ time, status, namespaces }) {
    const labels = new Set(namespaces.map((row) => row.netns));
    for (const label of this.namespaces.keys()) if (!labels.has(label)) this.namespaces.delete(label);
    this.takeRows(time, status, namespaces);
  }

  takeChange({ time, status, changed, gone }) {
    gone.forEach((label) => this.namespaces.delete(label));
    this.takeRows(time, status, changed);
  }

  /** Of those that are not told of nothing has changed. */
  takeRows(time, status, rows) {
    this.status = status;
    for (const row of rows) {
      if (!this.namespaces.has(row.netns)) this.namespaces.set(row.netns, new Namespace(row));
    }
    const told = new Map(rows.map((row) => [row.netns, row]));
    for (const [label, netns] of this.namespaces) netns.take(told.get(label) ?? netns.row, time);
    this.changed();
  }

  /** What a symptom is, in sentences. */
  explain(name) {
    return (
      this.symptoms.get(name) ?? {
        name,
        title: name.replace(/^drop:/, ""),
        says: "The kernel's own name; nothing is known of it here.",
        look: "netns-monitor why: in which function of the kernel it was",
        usual: false,
      }
    );
  }

  /** What goes wrong in a namespace now: `{ name, rate, title, says, look, minor }`, the worst first; what is usual left out. */
  troubles(netns) {
    const found = [...netns.present].map(([name, rate]) => {
      return { ...this.explain(name), rate: isSeldom(name) ? 0 : rate, minor: MINOR.has(name) };
    });
    const wrong = found.filter((one) => !one.usual).sort((a, b) => a.minor - b.minor || b.rate - a.rate);
    const down = netns.down();
    if (down.length > 0) {
      const says = `${down.join(", ")} ${down.length === 1 ? "is" : "are"} down: no packet comes or goes there.`;
      wrong.push({
        name: "down",
        title: "link down",
        says,
        look: "ip link in the namespace and at the other end",
        rate: 0,
        minor: true,
      });
    }
    return wrong;
  }

  /** How bad it is, as a number to sort by: over 1 what is an alarm, by how often; over 0 what is worth a look. */
  badness(netns) {
    let [worst, minor] = [0, netns.down().length > 0 ? 1 : 0];
    for (const [name, rate] of netns.present) {
      if (MINOR.has(name)) minor += rate;
      else if (!this.explain(name).usual) worst += rate;
    }
    return worst > 0 ? 1 + worst : minor > 0 ? minor / (1 + minor) : 0;
  }
}

/** An answer of the API. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const json = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(json.error), { code: answer.status });
  return json;
}
