// Asks the simulator of IAM. Standard input is a list of { policies, request }, standard output says of each how it ends and by
// which statements, and which keys of its context the action does not know: { result, statements, ignored }. A request that IAM does not know (an action, a resource or a key of a condition
// that is none) is an error and not a refusal.
//
// usage: node simulate.mjs FOLDER        (the folder with node_modules)

import { createRequire } from 'node:module'
import { text } from 'node:stream/consumers'

const { runSimulation } = createRequire(`${process.argv[2]}/`)('@cloud-copilot/iam-simulate')

// KMS asks the key's policy first. This is the one that every key has unless told otherwise: it leaves the matter to IAM.
const keyPolicy = (account) => ({
  Version: '2012-10-17',
  Statement: [
    { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' }
  ]
})

const answers = []
for (const { policies, request } of JSON.parse(await text(process.stdin))) {
  const response = await runSimulation(
    {
      identityPolicies: Object.entries(policies).map(([name, policy]) => ({ name, policy })),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      request,
      resourcePolicy: request.action.startsWith('kms:') ? keyPolicy(request.resource.accountId) : undefined
    },
    {}
  )
  if (response.resultType === 'error') {
    throw new Error(`${JSON.stringify(request)}: ${JSON.stringify(response.errors)}`)
  }
  const results = response.resultType === 'single' ? [response.result] : response.results
  const allowing = results.flatMap((one) => one.analysis?.identityAnalysis?.allowStatements ?? [])
  answers.push({
    result: response.overallResult,
    statements: allowing.map((one) => one.explain.identifier),
    ignored: results.flatMap((one) => one.ignoredContextKeys ?? [])
  })
}
console.log(JSON.stringify(answers))
