const grid = element.querySelector(".grid");
const NAMES = { "-1": "black", 0: "grey", 1: "white" };
const PRESETS = {
  diagonal: (row, column) => row === column,
  other: (row, column, size) => row + column === size - 1,
  crossing: (row, column, size) => row === column || row + column === size - 1,
};
let feature = [];
let picture = "the X";

function match() {
  ask(() => server.match({ feature, picture }));
}

function paint(button, row, column) {
  const value = feature[row][column];
  button.dataset.value = value;
  button.setAttribute("aria-label", `row ${row + 1}, column ${column + 1}: ${NAMES[value]}`);
}

function start(size, isWhite) {
  feature = Array.from({ length: size }, (_, row) =>
    Array.from({ length: size }, (_, column) => (isWhite(row, column, size) ? 1 : -1)),
  );
  grid.style.gridTemplateColumns = `repeat(${size}, 1fr)`;
  grid.replaceChildren();
  feature.forEach((values, row) =>
    values.forEach((_, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => {
        feature[row][column] = { 1: 0, 0: -1, "-1": 1 }[feature[row][column]];
        paint(button, row, column);
        match();
      });
      paint(button, row, column);
      grid.append(button);
    }),
  );
  match();
}

for (const button of element.querySelectorAll("[data-size]")) {
  button.addEventListener("click", () => start(Number(button.dataset.size), PRESETS.diagonal));
}
for (const button of element.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => start(feature.length, PRESETS[button.dataset.preset]));
}
for (const button of element.querySelectorAll("[data-picture]")) {
  button.addEventListener("click", () => {
    const drawn = button.dataset.picture === "drawing";
    picture = drawn ? document.querySelector("canvas").picture() : button.dataset.picture;
    match();
  });
}
whenOpened((opened) => {
  picture = opened;
  match();
});
start(3, PRESETS.diagonal);
