/* What the scripts of all reports share; a page includes it. All text reaches a page through make(), as text nodes. */
const DASH = "\u2013";

/* Text with what cannot be seen, or would reorder its neighbours, written out as \u{...}. */
function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu,
    character => `\\u{${character.codePointAt(0).toString(16)}}`);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "tip") { element.tip = value; element.dataset.tip = ""; }
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, visible(value));
  }
  element.append(...children.flat().filter(child => child != null).map(child => child instanceof Node ? child : visible(child)));
  return element;
}
/* An element. Attributes: "on..." are listeners, "style" an object, "tip" gives the lines of a tooltip. Children that are
   no elements become text; null is left out. */
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const byId = id => document.getElementById(id);
const minus = text => text.replace("-", "\u2212");
const count = value => value == null ? DASH : value.toLocaleString("en-US");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const real = (value, digits = 4) => value == null ? DASH : minus(String(Number(value.toPrecision(digits))));
const fixed = (value, digits = 4) => value == null ? DASH : minus(value.toFixed(digits));
const lastPart = path => String(path).split("/").filter(Boolean).pop() ?? String(path);
const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
/* Sorts as a person counts: layer 9 before layer 10. */
const natural = text => String(text).replace(/\d+/g, digits => digits.padStart(20, "0"));

/* Three digits and a decimal unit, as the Hugging Face Hub shows sizes. */
function scaled(value, units) {
  if (value == null) return DASH;
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit ? value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0) : value}${units[unit]}`;
}
const size = bytes => scaled(bytes, [" B", " kB", " MB", " GB", " TB", " PB"]);

function section(id, title, control, ...children) {
  return make("section", {id, "aria-label": title},
    make("div", {class: "heading"}, make("h2", {}, title), control), ...children);
}

/* Buttons of which one is pressed. */
function choices(label, options, chosen, onchoose) {
  const group = make("div", {class: "choices", role: "group", "aria-label": label}, options.map(option =>
    make("button", {type: "button", "aria-pressed": String(option === chosen), onclick: event => {
      for (const button of group.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      onchoose(option);
    }}, option)));
  return group;
}

/* A button that goes through the themes. */
function themeButton() {
  const themes = ["auto", "light", "dark"];
  let theme = 0;
  const button = make("button", {id: "theme", class: "field", type: "button", onclick: () => {
    theme = (theme + 1) % themes.length;
    document.documentElement.dataset.theme = themes[theme];
    button.textContent = `Theme: ${themes[theme]}`;
  }}, "Theme: auto");
  return button;
}

/* Shows the tooltips of elements that have one. */
function followTips() {
  const tip = byId("tip");
  const show = (target, x, y) => {
    tip.replaceChildren(...target.tip().filter(line => line != null).map(line => make("div", {}, line)));
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 8) : y + 16}px`;
  };
  const over = event => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) { tip.hidden = true; return; }
    const box = target.getBoundingClientRect();
    show(target, event.clientX ?? box.left, event.clientY ?? box.bottom - 12);
  };
  document.addEventListener("mousemove", over);
  document.addEventListener("focusin", over);
  document.addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
}
