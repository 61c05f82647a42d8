const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
let opened = null; // the picture on the canvas, until somebody draws
let shown = 0; // so that a picture which is ready late does not replace what came after it
let last = [0, 0];

function read(picture) {
  ask(() => server.read(picture));
}

function clear(ground = "black") {
  pen.fillStyle = ground;
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function show(picture) { // on the canvas, as large as it fits
  const image = new Image();
  const mine = ++shown;
  opened = picture;
  image.onload = () => {
    if (mine !== shown) return;
    clear("#808080"); // so that dark and light strokes on a transparent ground are seen
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  };
  image.src = picture;
}

canvas.picture = () => opened ?? canvas.toDataURL();

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

function drawTo(point) {
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...point);
  pen.stroke();
  last = point;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  shown += 1;
  if (opened) clear();
  opened = null;
  canvas.setPointerCapture(event.pointerId);
  Object.assign(pen, { strokeStyle: "white", lineWidth: 16, lineCap: "round" });
  last = place(event);
  drawTo(last); // a dot, if nothing follows
});
canvas.addEventListener("pointermove", (event) => {
  if (event.isPrimary && canvas.hasPointerCapture(event.pointerId)) drawTo(place(event));
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (event.isPrimary && canvas.hasPointerCapture(event.pointerId)) read(canvas.picture());
  });
}

element.querySelector(".clear").addEventListener("click", () => {
  asked += 1;
  shown += 1;
  opened = null;
  clear();
  say("Draw an X or an O with the mouse or a finger.");
});
for (const button of element.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    show(props.examples[button.dataset.example]);
    read(props.examples[button.dataset.example]);
  });
}
whenOpened((picture) => {
  show(picture);
  read(picture);
});
clear();
