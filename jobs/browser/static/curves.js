// Draws the curves of runs with uPlot, and asks for new points while the page is seen.
"use strict";
{
  const POLL_MS = 2000;
  const RETRY_MS = 5000;
  const HEIGHT = 240;
  const NUM_COLOURS = 8; // as in curves.py
  const DASHES = [undefined, [8, 5], [2, 4], [9, 4, 2, 4]]; // of the runs in a chart of sources
  const DASH_MARKS = ["━━", "╍╍", "┅┅", "━·"];
  const form = document.querySelector("#curve-settings");
  const words = form.dataset;
  const language = document.documentElement.lang;
  const compact = new Intl.NumberFormat(language, { notation: "compact", maximumSignificantDigits: 4 });
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const status = document.querySelector("#curve-status");

  const runs = [...document.querySelectorAll("#curve-runs li")].map((item, number) => ({
    item,
    dash: number < NUM_COLOURS ? undefined : [8, 5],
    name: item.dataset.name,
    points: item.dataset.points,
    steps: item.dataset.steps,
    box: item.querySelector("input"),
    version: "",
    splits: {},
  }));
  const charts = [...document.querySelectorAll("section[data-quantity]")].map((section) => ({
    section,
    key: section.dataset.quantity,
    isExact: "exact" in section.dataset,
    legend: section.querySelector(".sources"), // only in a chart with a curve for each source
    sources: new Map(), // name -> its entry in the legend
    place: section.querySelector(".plot"),
    readout: section.querySelector(".readout"),
    picked: section.querySelector(".picked"),
    plot: null,
  }));

  const sourceNumbers = new Map(); // name -> the number of its colour, the same in all charts

  // ---- points

  function merge(run, answer) {
    if (answer.version !== run.version) run.splits = {};
    run.version = answer.version;
    for (const [name, sent] of Object.entries(answer.splits)) {
      const split = (run.splits[name] ??= { step: [], tokens: [], seconds: [], values: {} });
      split.width = sent.width;
      for (const x of ["step", "tokens", "seconds"]) split[x].splice(sent.first, Infinity, ...sent[x]);
      for (const [key, columns] of Object.entries(sent.values)) {
        const known = (split.values[key] ??= {});
        for (const [column, values] of Object.entries(columns)) {
          const all = (known[column] ??= []);
          while (all.length < sent.first) all.push(null);
          all.splice(sent.first, Infinity, ...values);
        }
      }
    }
  }

  async function ask(run) {
    const have = Object.entries(run.splits).map(([name, split]) => [name, Math.max(0, split.step.length - 1)]);
    const query = new URLSearchParams([["version", run.version], ...have]);
    const response = await fetch(`${run.points}?${query}`);
    if (!response.ok) throw new Error(response.status);
    const answer = await response.json();
    const lines = (splits) => Object.values(splits).reduce((sum, split) => sum + split.lines, 0);
    const isNew = answer.version !== run.version || lines(answer.splits) !== run.lines;
    run.lines = lines(answer.splits);
    merge(run, answer);
    run.damaged = answer.damaged;
    return { isNew, more: answer.more };
  }

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  async function watch() {
    for (;;) {
      let wait = POLL_MS;
      if (!document.hidden) {
        // Where one fails, the others go on. If the command has ended, the table of latest values shows so.
        const answers = await Promise.all(runs.map((run) => ask(run).catch(() => ({ failed: true }))));
        if (answers.some((answer) => answer.isNew)) drawAll();
        if (answers.some((answer) => answer.more)) wait = 0;
        else if (answers.every((answer) => answer.failed)) wait = RETRY_MS;
        const damaged = runs.filter((run) => run.damaged).map((run) => `${run.name}: ${run.damaged}`);
        say(damaged.length ? `${words.damaged} ${damaged.join(", ")}` : "");
      }
      await pause(wait);
    }
  }

  function say(text) {
    if (status.textContent !== text) status.textContent = text; // a screen reader reads changes
  }

  // ---- curves

  /** Returns the means over the last `size` lines at each point. Each has its own sum, so that a spike passes. */
  function smoothed(values, width, size) {
    const reach = Math.max(1, Math.round(size / width));
    return values.mean.map((own, at) => {
      if (own === null) return null;
      let sum = 0;
      let count = 0;
      for (let i = Math.max(0, at - reach + 1); i <= at; i++) {
        if (values.mean[i] === null) continue;
        const weight = values.count ? values.count[i] : 1;
        sum += weight * values.mean[i];
        count += weight;
      }
      return sum / count;
    });
  }

  /** Returns the tables of a chart, one for each series of uPlot, and what each series is. */
  function seriesOf(chart) {
    const x = form.elements.x.value;
    const size = chart.isExact ? 1 : Math.max(1, Number(form.elements.smooth.value) || 1);
    const isLog = form.elements.log.checked;
    const fit = (values) => (isLog ? values.map((value) => (value > 0 ? value : null)) : values);
    const tables = [];
    const series = [];
    for (const run of runs) {
      if (!run.box.checked) continue;
      const { train, validation } = run.splits;
      for (const curve of curvesOf(chart, run)) {
        const add = (split, columns, kinds) => {
          const table = tableOf(split[x], columns.map(fit));
          if (!table[0].length) return;
          tables.push(table);
          series.push(...kinds.map((kind) => ({ ...curve, run, kind, end: table[0].at(-1), isAlone: table[0].length === 1 })));
        };
        const values = train?.values[curve.key];
        if (values) {
          const means = smoothed(values, train.width, size);
          if (chart.isExact) add(train, [means], ["mean"]);
          else add(train, [values.low ?? values.mean, values.high ?? values.mean, means], ["low", "high", "mean"]);
        }
        const found = validation?.values[curve.key];
        if (found) add(validation, [found.mean], ["evaluation"]);
      }
    }
    return { tables, series };
  }

  /** Returns the curves of a run in a chart: their keys, the elements that have their colours, and their dashes. */
  function curvesOf(chart, run) {
    if (!chart.legend) return [{ key: chart.key, item: run.item, dash: run.dash, source: "" }];
    const keys = new Set(Object.values(run.splits).flatMap((split) => Object.keys(split.values)));
    const dash = DASHES[runs.indexOf(run) % DASHES.length];
    return [...keys]
      .filter((key) => key.startsWith(`${chart.key}/`))
      .map((key) => {
        const source = key.slice(chart.key.length + 1);
        return { key, item: itemOf(chart, source), dash, source };
      });
  }

  /** Numbers new sources in the order in which runs name them: that of the tokens read, because a line may lack losses. */
  function numberSources() {
    for (const table of ["tokens_by_source/", "loss_by_source/"]) {
      const keys = runs.flatMap((run) => Object.values(run.splits).flatMap((split) => Object.keys(split.values)));
      for (const key of keys.filter((key) => key.startsWith(table))) {
        const source = key.slice(table.length);
        if (!sourceNumbers.has(source)) sourceNumbers.set(source, sourceNumbers.size);
      }
    }
  }

  /** Returns the entry of a source in the legend. After eight, the colours go round the circle by the golden angle. */
  function itemOf(chart, source) {
    const known = chart.sources.get(source);
    if (known) return known;
    const number = sourceNumbers.get(source);
    const item = document.createElement("li");
    item.textContent = source.length > 40 ? `${source.slice(0, 40)}…` : source;
    if (number < NUM_COLOURS) item.className = `run-${number}`;
    else item.style.color = `light-dark(hsl(${number * 137.5} 70% 35%), hsl(${number * 137.5} 70% 70%))`;
    chart.sources.set(source, item);
    return item;
  }

  /** Shows which colour is which source, and with several runs which dash is which run. */
  function fillLegend(chart, series) {
    const items = new Set(series.map(({ item }) => item));
    const drawn = new Set(series.map(({ run }) => run));
    const ofRuns = runs.length < 2 ? [] : [...drawn].map((run) => {
      const item = document.createElement("li");
      item.textContent = `${DASH_MARKS[runs.indexOf(run) % DASHES.length]} ${run.name}`;
      return item;
    });
    const ofSources = [...sourceNumbers.keys()].map((source) => chart.sources.get(source));
    chart.legend.replaceChildren(...ofSources.filter((item) => items.has(item)), ...ofRuns);
  }

  /** Returns the points that have an x value, which uPlot wants in order and each once. */
  function tableOf(xs, columns) {
    const kept = [];
    let last = -Infinity;
    xs.forEach((x, at) => {
      if (x === null || x < last) return;
      if (x === last) kept.pop();
      kept.push(at);
      last = x;
    });
    return [kept.map((at) => xs[at]), ...columns.map((values) => kept.map((at) => values[at] ?? null))];
  }

  const colourOf = ({ item }) => getComputedStyle(item).color;
  const paled = (colour, share) => colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);

  function styleOf({ item, dash, kind, isAlone }) {
    const colour = colourOf({ item });
    if (kind === "mean") return { stroke: colour, width: 2, dash, points: { show: isAlone } };
    if (kind === "evaluation") {
      const points = { show: true, size: 7, width: 1.5, stroke: colour, fill: getComputedStyle(document.body).backgroundColor };
      return { stroke: colour, paths: () => null, points };
    }
    return kind === "low"
      ? { stroke: paled(colour, 0.35), width: 1, points: { show: false } }
      : { points: { show: false } }; // the band between them has the rest
  }

  function inTime(seconds) {
    const minutes = Math.floor(seconds / 60);
    const two = (number) => String(number).padStart(2, "0");
    return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(seconds % 60))}`;
  }

  const shownX = (value) => (form.elements.x.value === "seconds" ? inTime(value) : compact.format(value));
  const shownExactX = (value) => (form.elements.x.value === "seconds" ? inTime(value) : whole.format(value));
  const shownY = (value) =>
    value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e15) ? Number(value.toPrecision(4)).toExponential() : compact.format(value);

  function optionsOf(chart, series, width) {
    const style = getComputedStyle(document.body);
    const line = getComputedStyle(chart.section).borderTopColor;
    const axis = { stroke: style.color, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const bands = series.flatMap((one, at) =>
      one.kind === "high" ? [{ series: [at + 1, at], fill: paled(colourOf(one), 0.35) }] : [],
    );
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "curves" }, points: { show: false } },
      scales: { x: { time: false }, y: form.elements.log.checked ? { distr: 3 } : {} },
      axes: [
        { ...axis, values: (_, values) => values.map(shownX), space: 70 },
        { ...axis, values: (_, values) => values.map((value) => (value === null ? "" : shownY(value))), size: 64 },
      ],
      series: [{}, ...series.map(styleOf)],
      bands,
      hooks: { setCursor: [(plot) => read(chart, plot)] },
    };
  }

  function draw(chart) {
    const { tables, series } = seriesOf(chart);
    chart.section.hidden = !tables.length;
    if (!tables.length) return forget(chart);
    chart.series = series; // they end later with every new line
    if (chart.legend) fillLegend(chart, series); // before the curves take their colours from it
    const data = uPlot.join(tables);
    const shape = JSON.stringify(series.map(({ run, key, kind, isAlone }) => [run.points, key, kind, isAlone]));
    if (chart.plot && chart.shape === shape) {
      const xs = chart.plot.data[0];
      const { min, max } = chart.plot.scales.x;
      const isZoomed = min > xs[0] || max < xs[xs.length - 1];
      chart.plot.setData(data, !isZoomed);
      if (isZoomed) chart.plot.redraw();
      return;
    }
    forget(chart);
    chart.shape = shape;
    chart.plot = new uPlot(optionsOf(chart, series, chart.place.clientWidth), data, chart.place);
    chart.plot.over.addEventListener("click", () => pick(chart));
  }

  function forget(chart) {
    chart.plot?.destroy();
    chart.plot = null;
    chart.readout.replaceChildren();
  }

  function drawAll() {
    numberSources();
    charts.forEach(draw);
  }

  function drawAnew() {
    charts.forEach(forget);
    drawAll();
  }

  // ---- what is below the pointer

  /** Returns the last value of a series at or before a place. */
  function valueAt(values, at) {
    while (at >= 0 && (values[at] === null || values[at] === undefined)) at--;
    return at < 0 ? null : values[at];
  }

  function read(chart, plot) {
    const at = plot.cursor.idx;
    chart.readout.replaceChildren();
    if (at === null || at === undefined || plot.cursor.left < 0) return;
    chart.readout.append(`${words[form.elements.x.value]} ${shownExactX(plot.data[0][at])}`);
    chart.series.forEach(({ run, item, source, kind, end }, number) => {
      if ((kind !== "mean" && kind !== "evaluation") || plot.data[0][at] > end) return;
      const value = valueAt(plot.data[number + 1], at);
      if (value === null) return;
      const part = document.createElement("span");
      part.style.color = colourOf({ item });
      part.textContent = `${kind === "mean" ? "━" : "○"} ${source && `${item.textContent} `}${shownY(value)}`;
      part.title = run.name;
      chart.readout.append(" ", part);
    });
  }

  /** Shows a link to the examples of the step that was clicked, of the run whose curve is nearest. */
  function pick(chart) {
    const { plot } = chart;
    const at = plot.cursor.idx;
    if (at === null || at === undefined) return;
    const wanted = plot.data[0][at];
    const near = chart.series.flatMap(({ run, kind, end }, number) => {
      const value = kind === "mean" && run.steps && wanted <= end ? valueAt(plot.data[number + 1], at) : null;
      return value === null ? [] : [{ run, distance: Math.abs(plot.valToPos(value, "y") - plot.cursor.top) }];
    });
    if (!near.length) return;
    const { run } = near.reduce((best, one) => (one.distance < best.distance ? one : best));
    const xs = run.splits.train[form.elements.x.value];
    const after = xs.findIndex((x) => x >= wanted);
    const step = run.splits.train.step[after < 0 ? xs.length - 1 : after];
    const link = document.createElement("a");
    link.href = `${run.steps}?step=${step}`;
    link.textContent = words.picked.replace("{step}", whole.format(step)).replace("{run}", run.name);
    for (const other of charts) other.picked.replaceChildren();
    chart.picked.replaceChildren(link);
  }

  // ---- settings

  const wanted = new URLSearchParams(location.search);
  const choices = [...form.elements.x.options].map((option) => option.value);
  if (choices.includes(wanted.get("x"))) form.elements.x.value = wanted.get("x");
  if (Number(wanted.get("smooth")) >= 1) form.elements.smooth.value = wanted.get("smooth");
  form.elements.log.checked = wanted.has("log");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}`);
    drawAnew();
  });
  for (const run of runs) run.box.addEventListener("change", drawAnew);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAnew);
  new ResizeObserver(() => {
    for (const { plot, place } of charts) {
      if (plot && plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
    }
  }).observe(document.querySelector("#curves"));
  watch();
}
