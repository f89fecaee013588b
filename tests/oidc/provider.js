// An OpenID provider on this machine, certified: whoever logs in as a known person is them, with any password.
// The argument is its configuration as JSON; "ready" is printed when it listens. Each start makes a new key.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { Provider } from "oidc-provider";

const given = JSON.parse(process.argv[2]);
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const key = { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "ES256" };

const provider = new Provider(given.issuer, {
  clients: given.clients.map((client) => ({
    ...client,
    id_token_signed_response_alg: "ES256",
    grant_types: ["authorization_code"],
    response_types: ["code"],
  })),
  claims: { openid: ["sub"], profile: ["name", "groups"], email: ["email", "email_verified"] },
  conformIdTokenClaims: given.conformIdTokenClaims ?? true, // true: claims are told at its userinfo endpoint alone
  cookies: { keys: [randomUUID()] },
  enabledJWA: { idTokenSigningAlgValues: ["ES256"] },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  findAccount: (_context, id) =>
    given.people[id] && { accountId: id, claims: () => ({ sub: id, ...given.people[id] }) },
  jwks: { keys: [key] },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
});
provider.listen(given.port, "127.0.0.1", () => console.log("ready"));
