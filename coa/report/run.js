'use strict';

let from = null;

const unfold = element => {
  for (let box = element.closest('details'); box; box = box.parentElement.closest('details')) box.open = true;
};

const light = id => {
  document.querySelectorAll('mark.here').forEach(mark => mark.classList.remove('here'));
  document.querySelectorAll(`mark[data-c~="${CSS.escape(id)}"]`).forEach(mark => mark.classList.add('here'));
};

const inView = element => {
  const box = element.getBoundingClientRect();
  return box.top >= 0 && box.top < innerHeight;
};

/* Blocks above get their true heights while they come into view, which moves what is below them: look again. */
const show = (element, tries) => {
  const tall = element.getBoundingClientRect().height > innerHeight * 0.6;
  element.scrollIntoView({ behavior: 'instant', block: tall ? 'start' : 'center' });
  if (tries > 0) requestAnimationFrame(() => requestAnimationFrame(() => inView(element) || show(element, tries - 1)));
};

const go = (id, keepFocus) => {
  const element = document.getElementById(id);
  if (!element) return false;
  unfold(element);
  if (element.matches('details, .entry')) element.querySelectorAll('details').forEach(box => { box.open = true; });
  light(id);
  if (!keepFocus) {
    if (!element.matches('a, button, summary, [tabindex]')) element.setAttribute('tabindex', '-1');
    element.focus({ preventScroll: true });
  }
  show(element, 4);
  return true;
};

/* Ids are plain ASCII; an address that somebody wrote may be anything. */
const here = () => location.hash.slice(1);

document.addEventListener('click', event => {
  const link = event.target.closest('a[href^="#"]');
  if (link) {
    from = link;
    /* The same link again changes no address, and tells of no change. */
    if (location.hash === link.hash) { event.preventDefault(); go(here()); }
    return;
  }
  const bar = event.target.closest('[data-go]');
  if (bar) location.hash = bar.dataset.go;
});

document.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || !from || !from.isConnected) return;
  unfold(from);
  from.focus({ preventScroll: true });
  show(from, 4);
});

for (const button of document.querySelectorAll('[data-unfold]')) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const boxes = [...button.closest('section').querySelectorAll('.entry > details')];
    const open = boxes.some(box => !box.open);
    boxes.forEach(box => { box.open = open; });
    button.textContent = open ? 'Fold all notes' : 'Unfold all notes';
  });
}

addEventListener('hashchange', () => go(here()));
if (location.hash) go(here());
