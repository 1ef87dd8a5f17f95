'use strict';

const table = document.getElementById('rows');
const rows = [...table.tBodies[0].rows];
const words = document.getElementById('words');
const state = document.getElementById('state');
const told = document.getElementById('count');
const texts = rows.map(row => row.textContent.toLowerCase());

const narrow = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, n) => {
    const fits = wanted.every(word => texts[n].includes(word)) && (!state.value || row.dataset.state === state.value);
    row.hidden = !fits;
    shown += fits;
  });
  told.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
};

const sort = (head, column) => {
  const down = head.getAttribute('aria-sort') === 'ascending';
  for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const order = (one, two) => {
    const [a, b] = [one.cells[column], two.cells[column]];
    const by = a.dataset.v === undefined
      ? a.textContent.localeCompare(b.textContent, undefined, { numeric: true })
      : Number(a.dataset.v) - Number(b.dataset.v);
    return down ? -by : by;
  };
  table.tBodies[0].append(...rows.slice().sort(order));
};

[...table.tHead.rows[0].cells].forEach((head, column) => {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = head.textContent;
  button.addEventListener('click', () => sort(head, column));
  head.replaceChildren(button);
});

document.getElementById('filters').hidden = false;
words.addEventListener('input', narrow);
state.addEventListener('change', narrow);
if (words.value || state.value) narrow();
