// An application that is told of events by a destination. It verifies each request with the package
// of Standard Webhooks, answers every other of them 500, and takes an event once.
//
// It prints its port, then a line for each request: whether it was taken, and what it held.

import { createServer } from "node:http";

import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.argv[2]);
const taken = new Set();
let requests = 0;

const tell = (line) => console.log(JSON.stringify(line));

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    event = webhook.verify(Buffer.concat(chunks).toString(), request.headers);
  } catch (error) {
    tell({ refused: error.message });
    response.writeHead(401).end();
    return;
  }
  requests += 1;
  if (requests % 2) {
    tell({ failed: event.event_id, attempt: Number(request.headers["webhook-attempt"]) });
    response.writeHead(500).end("out of order");
    return;
  }
  const id = request.headers["webhook-id"];
  tell({ taken: event.event_id, again: taken.has(id), data: event.data });
  taken.add(id);
  response.writeHead(204).end();
});

server.listen(0, "127.0.0.1", () => tell({ port: server.address().port }));
