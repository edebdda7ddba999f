// Tables sort by a click on a heading: up, down, and back to their own order. Without scripts they stand as they are.
const number = /^[<>]?\s*[+-]?\d[\d,]*(\.\d+)?/;

function valueOf(row, column) {
  const found = row.cells[column].textContent.trim().match(number);
  return found ? parseFloat(found[0].replace(/[<>,\s]/g, "")) : NaN;
}

function compare(column, isNumeric, sign) {
  return (one, other) => {
    if (!isNumeric) {
      return sign * one.cells[column].textContent.localeCompare(other.cells[column].textContent, "en");
    }
    const [a, b] = [valueOf(one, column), valueOf(other, column)];
    return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b);
  };
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const own = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const isNumeric = own.some((row) => !isNaN(valueOf(row, column)));
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[heading.getAttribute("aria-sort")];
      const direction = next === undefined ? "ascending" : next;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      if (direction) heading.setAttribute("aria-sort", direction);
      const sign = direction === "descending" ? -1 : 1;
      body.append(...(direction ? [...own].sort(compare(column, isNumeric, sign)) : own));
    });
  });
}
