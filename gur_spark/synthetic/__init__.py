"""A card log to try gur_spark on: personas, seasons, users who leave, and rows that are broken on purpose.

``python -m gur_spark.synthetic --out FOLDER`` writes ``FOLDER/landings/YYYY-MM-DD.csv.gz`` (client, booked_at,
merchant_category, channel, amount), ``FOLDER/labels.csv`` (client, persona) and ``FOLDER/profiles.csv`` (attributes
that users declare when they sign up). The same arguments give the same bytes. The log is drawn as follows:

* **Users.** A user has one of five personas, a rate of events and a first day. Rates are log-normal around one event in
  two days; three users in a thousand are *hot*, with sixty times their rate. Most users are there from the first day,
  and 30 % join later.
* **Times.** The number of a user's events on a day is Poisson. Its mean is the product of the rate, a weekday factor of
  the persona, a yearly season (a sine with its maximum in mid July) and the user's presence. Hours are normal around
  the persona's hour.
* **Presence.** One user in three leaves: from some day on, the rate halves every 5 to 40 days, and after four halvings
  it is zero. All users also make pauses, two of 10 to 60 days on average, so silence is a sign of having left and no
  proof. Users who leave spend less and ask for refunds more often.
* **Categories and amounts.** Each user has a mix of ten themes, Dirichlet around the persona's mix; travel and home
  follow the seasons. A theme has four merchant categories, and the last theme has 400 with Zipf's law: the long tail.
  Amounts are log-normal around the theme's median, by persona and user. A refund is negative.
* **Landings.** A row lands on its day. 1 % of rows land up to five days late, 1 % are delivered twice (half of these in
  a later file), and 0.4 % come a second time broken: with too many or too few columns, a date that does not exist, an
  amount that is no number, or no client. So it is known exactly which events a pipeline must end with (``Log.counts``).
"""
