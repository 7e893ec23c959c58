"use strict";
// Draws the curves that the build exported from the real implementation; computes no loss itself.
(() => {
  const data = window.APTT_EXPLORER;
  const box = document.getElementById("explorer");
  if (!data || !box) return;
  const W = 360, H = 220, L = 48, B = 22, T = 8;
  const $ = (tag, attributes = {}, ns = false) => {
    const e = ns ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    return e;
  };
  const round = (v, span) => (Math.abs(v) < 1e-4 * span ? 0 : v);
  const short = (v) => (v === null ? "none" : Number(v.toPrecision(4)).toString());
  const controls = $("div", { class: "explorer" }), panels = $("div", { class: "panels" });
  const pick = $("select", { id: "loss" }), wrap = $("label");
  wrap.append("loss", pick);
  for (const name of Object.keys(data)) pick.append(new Option(name, name));
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = Object.keys(data).find((name) => data[name].options.length);
  pick.value = data[wanted] ? wanted : data.focal_loss ? "focal_loss" : first;
  box.append(controls, panels);

  let sliders = [], where;
  function slider(id, text, count, at) {
    const label = $("label"), out = $("output"), input = $("input", { type: "range", min: 0, max: count - 1, step: 1, id });
    input.value = at;
    const line = $("span");
    line.append(text + " ", out);
    label.append(line, input);
    input.addEventListener("input", draw);
    controls.append(label);
    return { input, out };
  }
  function setUp() {
    const loss = data[pick.value];
    controls.replaceChildren(wrap);
    sliders = loss.options.map((o) => slider("option-" + o.name, o.name, o.values.length, o.usual));
    where = slider("position", loss.across, loss.at.length, Math.round(loss.at.length * 0.4));
    draw();
  }
  function curve(loss, picked) {
    let index = 0;
    loss.options.forEach((o, k) => { index = index * o.values.length + picked[k]; });
    return loss.curves[index];
  }
  function draw() {
    const loss = data[pick.value], picked = sliders.map((s) => Number(s.input.value)), i = Number(where.input.value);
    sliders.forEach((s, k) => { s.out.textContent = short(loss.options[k].values[picked[k]]); });
    where.out.textContent = short(loss.at[i]);
    const now = curve(loss, picked), usual = curve(loss, loss.options.map((o) => o.usual));
    panels.replaceChildren(
      panel("value", "loss", 0, loss, now, usual, i), panel("gradient", "gradient", 1, loss, now, usual, i));
  }
  function panel(id, title, which, loss, now, usual, i) {
    const all = loss.curves.filter(Boolean).flatMap((c) => c[which]);
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
    const first = loss.at[0], last = loss.at[loss.at.length - 1];
    const x = (v) => L + ((v - first) / (last - first)) * (W - L - 4);
    const y = (v) => T + (1 - (v - low) / span) * (H - T - B);
    const svg = $("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} along ${loss.across}` }, true);
    svg.append($("path", { class: "axis", d: `M${L} ${T}V${H - B}H${W}` }, true));
    const mark = (v, px, py, anchor) => {
      const t = $("text", { x: px, y: py, "text-anchor": anchor }, true);
      t.textContent = short(v);
      svg.append(t);
    };
    mark(round(low, span), L - 5, H - B, "end"); mark(round(high, span), L - 5, T + 9, "end");
    if (low < 0 && high > 0) { svg.append($("path", { class: "axis", d: `M${L} ${y(0)}H${W}`, "stroke-dasharray": "3 3" }, true)); }
    mark(first, L, H - 6, "start"); mark(last, W - 4, H - 6, "end");
    const line = (c, kind) => c && svg.append($("polyline", { class: kind, points: c[which].map((v, k) => `${x(loss.at[k]).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }, true));
    line(usual, "usual"); line(now, "now");
    const figure = $("figure"), caption = $("figcaption", { id });
    if (now) {
      svg.append($("circle", { cx: x(loss.at[i]), cy: y(now[which][i]), r: 4 }, true));
      caption.textContent = `${title} ${now[which][i]}`;
    } else { caption.textContent = `${title}: these options do not go together`; }
    figure.append(caption, svg);
    return figure;
  }
  pick.addEventListener("change", () => { history.replaceState(null, "", "#" + pick.value); setUp(); });
  setUp();
})();
