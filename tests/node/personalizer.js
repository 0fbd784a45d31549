// Drives Microsoft's JavaScript SDK, unmodified; prints what it was told as one line of JSON.
const { PersonalizerClient } = require("@azure/cognitiveservices-personalizer");
const { ApiKeyCredentials } = require("@azure/ms-rest-js");

async function main() {
  const [endpoint, key] = process.argv.slice(2);
  const client = new PersonalizerClient(new ApiKeyCredentials({ inHeader: { "Ocp-Apim-Subscription-Key": key } }), endpoint);
  const request = {
    eventId: "js/1 é",
    deferActivation: true,
    contextFeatures: [{ timeOfDay: "morning" }, { user: { age: 33 } }],
    actions: ["a", "b", "c"].map((id) => ({ id, features: [{ topic: id }, { nutrition: { calories: 300 } }] })),
    excludedActions: ["b"],
  };
  const answer = await client.rank(request);
  const activated = await client.events.activate(request.eventId);
  const rewarded = await client.events.reward(request.eventId, { value: 0.5 });
  const refused = await client.rank({ actions: [] }).catch((error) => error);
  console.log(
    JSON.stringify({
      ranking: answer.ranking,
      eventId: answer.eventId,
      rewardActionId: answer.rewardActionId,
      statuses: [answer._response.status, activated._response.status, rewarded._response.status],
      refused: [refused.statusCode, refused.body && refused.body.error.code],
    }),
  );
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
