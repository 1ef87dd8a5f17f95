"use strict";
(() => {
  const items = [...document.querySelectorAll(".questions > li")];
  const [set, score, text] = ["filter-set", "filter-score", "filter-text"].map((id) => document.getElementById(id));
  const count = document.getElementById("filter-count");
  const words = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
  const narrow = () => {
    const wanted = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const fits = (!set.value || item.dataset.set === set.value) && (!score.value || item.dataset.score === score.value)
        && wanted.every((word) => words.get(item).includes(word));
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = shown === 1 ? "1 question" : `${shown} questions`;
  };
  for (const control of [set, score, text]) { control.addEventListener("input", narrow); }
})();
