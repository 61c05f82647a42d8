const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
let openedPicture = null; // the picture on the canvas, until something is drawn
let lastPicture = 0; // so that a picture that loads late does not replace what came after it
let lastPoint = [0, 0];

function classify(picture) {
  showAnswer(() => server.classify_letter(picture));
}

function clearCanvas(background = "black") {
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function showPicture(picture) { // on the canvas, as large as it fits
  const image = new Image();
  const number = ++lastPicture;
  openedPicture = picture;
  image.onload = () => {
    if (number !== lastPicture) return;
    clearCanvas("#808080"); // so that dark and light strokes on a transparent background are visible
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  };
  image.src = picture;
}

canvas.picture = () => openedPicture ?? canvas.toDataURL();

function canvasPoint(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

function drawTo(point) {
  context.beginPath();
  context.moveTo(...lastPoint);
  context.lineTo(...point);
  context.stroke();
  lastPoint = point;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  lastPicture += 1;
  if (openedPicture) clearCanvas();
  openedPicture = null;
  canvas.setPointerCapture(event.pointerId);
  Object.assign(context, { strokeStyle: "white", lineWidth: 16, lineCap: "round" });
  lastPoint = canvasPoint(event);
  drawTo(lastPoint); // a dot, if the pointer does not move
});
canvas.addEventListener("pointermove", (event) => {
  if (event.isPrimary && canvas.hasPointerCapture(event.pointerId)) drawTo(canvasPoint(event));
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (event.isPrimary && canvas.hasPointerCapture(event.pointerId)) classify(canvas.picture());
  });
}

element.querySelector(".clear").addEventListener("click", () => {
  lastRequest += 1;
  lastPicture += 1;
  openedPicture = null;
  clearCanvas();
  showMessage("Draw an X or an O with the mouse or a finger.");
});
for (const button of element.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    showPicture(props.examples[button.dataset.example]);
    classify(props.examples[button.dataset.example]);
  });
}
onPictureOpened((picture) => {
  showPicture(picture);
  classify(picture);
});
clearCanvas();
