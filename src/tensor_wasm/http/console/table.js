// Making and changing what the page shows. Text is set as text, never read as markup, and what stays the same is left
// alone: focus, selection and scrolling outlast every refresh.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text among the children is text. */
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a picture. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Set a state: a word, and a shape before it that the style draws. `state` is ok, warn, bad or quiet. */
export function setMark(element, state, text) {
  element.classList.add("mark");
  setAttribute(element, "data-state", state);
  setText(element, text);
}

/** Have `list` (a <dl>) say these [name, value, note?] lines; the names stay the same. */
export function setLines(list, lines) {
  if (list.children.length !== lines.length) {
    list.replaceChildren(...lines.map(() => make("div", {}, make("dt"), make("dd"))));
  }
  lines.forEach(([name, value, state = null], index) => {
    const [term, description] = list.children[index].children;
    setText(term, name);
    setText(description, value);
    setAttribute(description, "data-state", state);
    description.classList.toggle("mark", state !== null);
  });
}

/**
 * A table whose rows have keys.
 *
 * `columns` are {name, kind?, write}: `write(cell, row)` fills a cell, `kind` is for the style. While somebody is in the table with the pointer or the keyboard, rows stay where they are: those that
 * are no longer given stay too, with `data-gone`, and `onGone(row)` is called once for each.
 */
export class KeyedTable {
  #columns;
  #body;
  #empty;
  #onGone;
  #rows = new Map();

  constructor(table, columns, empty, onGone = () => {}) {
    this.#columns = columns;
    this.#onGone = onGone;
    const names = columns.map(({ name, kind = "" }) => make("th", { scope: "col", class: kind }, name));
    this.#empty = make("td", { colspan: columns.length, class: "dim" }, empty);
    this.#body = make("tbody");
    table.append(make("thead", {}, make("tr", {}, ...names)), this.#body);
  }

  get #isHeld() {
    // A dialog asks about a row, and gives the focus back to it.
    const asks = document.querySelector("dialog[open]") !== null;
    return asks || this.#body.matches(":hover") || this.#body.contains(document.activeElement);
  }

  /** Show these, in their order; `keyOf(row)` is what a row is known by. */
  update(values, keyOf) {
    const isHeld = this.#isHeld;
    const wanted = new Map(values.map((value) => [keyOf(value), value]));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      if (isHeld) {
        if (!row.hasAttribute("data-gone")) {
          row.setAttribute("data-gone", "");
          this.#onGone(row);
        }
      } else {
        row.remove();
        this.#rows.delete(key);
      }
    }
    let previous = null;
    for (const [key, value] of wanted) {
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = this.#row();
        this.#rows.set(key, row);
        if (isHeld) this.#body.append(row);
      }
      row.removeAttribute("data-gone");
      this.#columns.forEach(({ write }, index) => write(row.cells[index], value));
      if (!isHeld) {
        const place = previous === null ? this.#body.firstChild : previous.nextSibling;
        if (row !== place) this.#body.insertBefore(row, place);
      }
      previous = row;
    }
    if (this.#rows.size === 0) {
      if (!this.#empty.isConnected) this.#body.replaceChildren(make("tr", {}, this.#empty));
    } else if (this.#empty.isConnected) {
      this.#empty.parentElement.remove();
    }
  }

  #row() {
    // The first column names the row.
    const cells = this.#columns.map(({ kind = "" }, index) =>
      make(index ? "td" : "th", index ? { class: kind } : { scope: "row", class: kind }));
    return make("tr", {}, ...cells);
  }
}
