const grid = element.querySelector(".grid");
const COLOR_NAMES = { "-1": "black", 0: "gray", 1: "white" };
const NEXT_VALUE = { 1: 0, 0: -1, "-1": 1 };
const PRESETS = {
  diagonal: (row, column) => row === column,
  other: (row, column, size) => row + column === size - 1,
  crossing: (row, column, size) => row === column || row + column === size - 1,
};
let feature = [];
let picture = "the X";

function match() {
  showAnswer(() => server.match_feature({ feature, picture }));
}

function paintButton(button, row, column) {
  const value = feature[row][column];
  button.dataset.value = value;
  button.setAttribute("aria-label", `row ${row + 1}, column ${column + 1}: ${COLOR_NAMES[value]}`);
}

function startFeature(size, isWhite) {
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
        feature[row][column] = NEXT_VALUE[feature[row][column]];
        paintButton(button, row, column);
        match();
      });
      paintButton(button, row, column);
      grid.append(button);
    }),
  );
  match();
}

for (const button of element.querySelectorAll("[data-size]")) {
  button.addEventListener("click", () => startFeature(Number(button.dataset.size), PRESETS.diagonal));
}
for (const button of element.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => startFeature(feature.length, PRESETS[button.dataset.preset]));
}
for (const button of element.querySelectorAll("[data-picture]")) {
  button.addEventListener("click", () => {
    const isDrawing = button.dataset.picture === "drawing";
    picture = isDrawing ? document.querySelector("canvas").picture() : button.dataset.picture;
    match();
  });
}
onPictureOpened((dataUrl) => {
  picture = dataUrl;
  match();
});
startFeature(3, PRESETS.diagonal);
