-- Rows as the first version wrote them, before there was a second: what a migration must keep readable.

INSERT INTO "changes" VALUES (
  'w1',1,'promoted',1773144000123456,NULL,'spring','pol_1','key key_1 (ann)');

INSERT INTO "counters" VALUES (
  'w1','change_position',1);

INSERT INTO "counters" VALUES (
  'w1','config_version',3);

INSERT INTO "decisions" VALUES (
  1,'w1','dec_1','order-1',
  X'0101','spring',1,'u1',2,0,0,1773144000123456,0.1,'pol_1',5,97,25,
  X'FF00','mens','email','marketing',1773165600123456,NULL,1773167400123456,'p','m',NULL,NULL,0,'pol_9',
  CAST('{"w":[1773144000123456,1773230400123456],"v":["mens","womens"],"c":["email","sms"],"z":"Europe/Berlin","x":{"country":"DE","age":33},"n":1,"h":["mens","email",null,0.5,"pol_9"],"o":["weekly"],"r":[["weekly","cap",12,1773252000123456],["consent","consent",3,null]]}' AS BLOB),1773167400123456);

INSERT INTO "decisions" VALUES (
  2,'w1','dec_2','order-1',
  X'0101','spring',1,'u1',6,0,0,1773144000123456,0.1,'pol_1',5,97,25,
  X'FF00','mens','email','marketing',1773165600123456,NULL,NULL,NULL,NULL,1773147600123456,NULL,0,NULL,
  CAST('{"w":[1773144000123456,1773230400123456],"v":["mens","womens"],"c":["email","sms"],"z":"Europe/Berlin","x":{"country":"DE","age":33}}' AS BLOB),NULL);

INSERT INTO "decisions" VALUES (
  3,'w1','dec_3','order-1',
  X'0101','spring',1,'u1',0,0,0,1773144000123456,0.1,'pol_1',5,97,25,
  X'FF00','mens','email','marketing',1773176400123456,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,
  CAST('{"w":[1773144000123456,1773230400123456],"v":["mens","womens"],"c":["email","sms"],"z":"Europe/Berlin","x":{"country":"DE","age":33}}' AS BLOB),1773176400123456);

INSERT INTO "events" VALUES (
  1,'w1','ev_1','opened',1773169200123456,1773171000123456,1,'dec_1',NULL,NULL,NULL,NULL,NULL,0,NULL);

INSERT INTO "messages" VALUES (
  'w1','u1',1773147600123456,'crm-1','email','marketing',NULL,NULL,NULL);

INSERT INTO "messages" VALUES (
  'w1','u1',1773167400123456,'dec_1','email','marketing','spring','mens',0);

INSERT INTO "messages" VALUES (
  'w1','u1',1773176400123456,'dec_3','email','marketing','spring','mens',0);

INSERT INTO "policy_uses" VALUES (
  'w1','pol_1',3);

INSERT INTO "policy_uses" VALUES (
  'w1','pol_9',1);

INSERT INTO "recipients" VALUES (
  'w1','u1',1,
  CAST('{"z":"Europe/Berlin","a":{"country":"DE","age":33,"score":0.25,"plan":null,"tags":["a","b"]},"c":{"email":[true,null,null],"push":[false,"app",1773144000123456]},"s":[["sms","marketing","import",1773144000123456],["*","*",null,null]],"u":1773144000123456}' AS BLOB));

INSERT INTO "rules" VALUES (
  'w1','weekly',2,
  CAST('{"kind":"cap","parameters":{"limit":3,"rolling_hours":168.0,"calendar":null,"week_start":"mon"},"applies_to":{"channels":null,"except_channels":null,"categories":null,"except_categories":null,"campaigns":null,"except_campaigns":null},"counts":{"channels":["email"],"except_channels":null,"categories":null,"except_categories":null,"campaigns":null,"except_campaigns":null},"dry_run":true}' AS BLOB));

INSERT INTO "rules" VALUES (
  'w1','night',1,
  CAST('{"kind":"quiet_hours","parameters":{"start":"21:00","end":"08:00","days":["mon"]},"applies_to":{"channels":null,"except_channels":null,"categories":null,"except_categories":null,"campaigns":null,"except_campaigns":null},"counts":{"channels":["email"],"except_channels":null,"categories":null,"except_categories":null,"campaigns":null,"except_campaigns":null}}' AS BLOB));
