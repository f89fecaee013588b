// Reads requests from stdin, one JSON object a line, and answers each with a line: what GitHub's own
// library signs (`sign`), and whether it accepts a signature (`verify`).

import { createInterface } from "node:readline";

import { Webhooks } from "@octokit/webhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, body, signature } = JSON.parse(line);
  const webhooks = new Webhooks({ secret });
  const answer =
    signature === undefined
      ? await webhooks.sign(body)
      : await webhooks.verify(body, signature);
  console.log(JSON.stringify(answer));
}
